"""The stand-in: a mock server of the Grok API for demos, tests and benchmarks."""
