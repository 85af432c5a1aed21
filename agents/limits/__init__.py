"""Limits between a conversation and the bill: pure state machines, time is an argument."""
