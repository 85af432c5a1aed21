"""What travels and what is promised: messages, topics, settings, errors. Imports nothing of ours, talks to nobody."""
