"""Kafka clients, topics, offsets and lag. Imports no other part of the service."""
