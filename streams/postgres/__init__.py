"""Postgres, as everyone here uses it: error classes, migrations, statements. Imports no other part of the service."""
