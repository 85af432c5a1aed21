"""Messages, topics, settings and errors: what crosses a process boundary.

Does no I/O but reading settings.
"""
