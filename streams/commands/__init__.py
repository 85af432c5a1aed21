"""One file for each command of `grok-insights`; only `streams.cli` imports them."""
