"""The service on one machine: local stack, demo and stand-in. None of it is on the data path."""
