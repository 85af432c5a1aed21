"""`python -m streams` is the command `grok-insights`."""

from streams.cli import main

main()
