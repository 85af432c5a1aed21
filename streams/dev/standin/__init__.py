"""The stand-in: a mock server for the Grok API, for demos, tests and benchmarks."""
