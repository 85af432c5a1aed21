"""What operators run: the audit, and the handling of dead letters."""
