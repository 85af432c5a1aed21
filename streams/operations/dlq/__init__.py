"""Dead letters: list them, show one, replay them into `conversations`."""
