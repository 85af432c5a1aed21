"""Topics, headers, event types and the place of a record in the log: one table for all that use Kafka."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

DEFAULT_TENANT = "default"
#: The RocksDB table that caches answers.
ANSWERS_TABLE = "answers"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics and the consumer group of one environment. Table and agent need equal partition counts in all topics.

    `prefix` starts the name of every topic. `consumer_group` is the whole name of the group, any prefix included.
    """

    prefix: str = ""
    consumer_group: str = "grok-insights"

    @property
    def conversations(self) -> str:
        """What producers and the gateway send."""
        return f"{self.prefix}conversations"

    @property
    def rehomed(self) -> str:
        """Records that were sent on to the partition of their text."""
        return f"{self.prefix}conversations.rehomed"

    @property
    def dead_letters(self) -> str:
        """Records that cannot be processed, each with the reason."""
        return f"{self.prefix}conversations.dlq"

    @property
    def insights(self) -> str:
        """One event for each conversation that was processed."""
        return f"{self.prefix}insights"

    @property
    def inputs(self) -> tuple[str, str]:
        """The topics that the workers consume."""
        return self.conversations, self.rehomed

    @property
    def messages(self) -> tuple[str, str, str, str]:
        """The topics that hold conversations and their outcomes: what `audit` reads."""
        return *self.inputs, self.dead_letters, self.insights

    @property
    def answers_changelog(self) -> str:
        """The changelog of the table `answers`, from which a worker that takes a partition over restores its cache."""
        prefix = "" if self.consumer_group.startswith(self.prefix) else self.prefix
        return f"{prefix}{self.consumer_group}-{ANSWERS_TABLE}-changelog"

    @property
    def replay_ledger(self) -> str:
        """Which dead letters were replayed. Only `dlq` reads and writes it."""
        return f"{self.dead_letters}.replayed"


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
