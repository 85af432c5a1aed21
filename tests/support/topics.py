"""The topic names that tests use: those of the default settings, or with a prefix."""

from schemas.kafka import Topics

TOPICS = Topics()


def topics_with(prefix: str) -> Topics:
    """The names that TOPIC_PREFIX alone results in."""
    return Topics(prefix, f"{prefix}grok-insights")
