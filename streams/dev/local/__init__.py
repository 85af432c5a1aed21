"""The local stack: broker, Postgres and our own processes on loopback, started in order, watched and stopped."""
