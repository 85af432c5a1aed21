"""Topic names, message types and the place of a record in the log: one table for producers, consumers and `topics`."""

from enum import StrEnum

import msgspec

CONSUMER_GROUP = "grok-insights"
DEFAULT_TENANT = "default"


class Topic(StrEnum):
    """Every topic of the service. All have the same number of partitions, which table and agent rely on."""

    CONVERSATIONS = "conversations"
    REHOMED = "conversations.rehomed"
    DEAD_LETTERS = "conversations.dlq"
    INSIGHTS = "insights"


#: The topics whose records become outcomes; one agent reads both.
INPUT_TOPICS = (Topic.CONVERSATIONS, Topic.REHOMED)

#: The changelog of the RocksDB table `answers`, by which a worker that takes a partition over restores its cache.
ANSWERS_TABLE = "answers"
ANSWERS_CHANGELOG = f"{CONSUMER_GROUP}-{ANSWERS_TABLE}-changelog"

#: Which dead letters were replayed. Not in `Topic`: workers neither read nor write it, and it holds no conversations.
REPLAY_LEDGER = f"{Topic.DEAD_LETTERS}.replayed"


class Header:
    """Names of Kafka headers: CloudEvents' binary mode (cloudevents.io, Kafka binding 3.2) plus our own."""

    SPEC_VERSION = "ce_specversion"
    ID = "ce_id"
    TYPE = "ce_type"
    SOURCE = "ce_source"
    TIME = "ce_time"
    CONTENT_TYPE = "content-type"
    TENANT = "tenant"
    TRACEPARENT = "traceparent"


class EventType(StrEnum):
    """Values of `ce_type`."""

    CONVERSATION = "grok-insights.conversation"
    INSIGHT = "grok-insights.insight"


class Origin(msgspec.Struct, frozen=True):
    """Where a record stood when it was first read: for a rehomed one, its place in `conversations`."""

    topic: str
    partition: int
    offset: int
