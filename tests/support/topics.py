"""The topic names that tests use: those of the default settings, or names of their own on a shared broker."""

import secrets

from schemas.kafka import Topics

TOPICS = Topics()


def topics_with(prefix: str) -> Topics:
    """The names that TOPIC_PREFIX alone results in."""
    return Topics(prefix, f"{prefix}grok-insights")


def fresh_prefix() -> str:
    """A TOPIC_PREFIX that no other test has used."""
    return f"{secrets.token_hex(4)}."
