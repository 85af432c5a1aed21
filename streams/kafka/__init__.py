"""Kafka, as everyone here uses it: clients, offsets, lag, topics. Imports no other part of the service."""
