"""The operators' tools: the audit, and the commands for dead letters."""
