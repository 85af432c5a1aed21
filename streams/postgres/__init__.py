"""DATABASE_URL, connections, migrations, queries, and what failures mean. Imports no other part of the service."""
