"""The local stack: broker, Postgres and our own processes on loopback, started, watched and stopped in order."""
