"""Metrics, logs, health checks and the HTTP server that exposes them."""
