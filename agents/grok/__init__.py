"""The Grok API: prompt, wire format, failures. Only `client` speaks HTTP."""
