"""What may stand between a message and the bill: pure state machines, time is an argument."""
