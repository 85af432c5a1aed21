"""A stand-in for the Grok API over real HTTP, with faults on request: for tests, demo and load."""
