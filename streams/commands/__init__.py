"""The commands of `grok-insights`; only `streams.cli` imports them."""
