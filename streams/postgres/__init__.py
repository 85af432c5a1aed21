"""Postgres migrations, queries and error classes. Imports no other part of the service."""
