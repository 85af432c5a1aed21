"""The audit: what the topics hold and what the rows say, joined on disk, and whether the books balance."""
