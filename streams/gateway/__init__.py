"""The HTTP gateway: thin, answers 202 only after the broker has the conversation."""
