"""Metrics, logs and health: everything by which the service is watched."""
