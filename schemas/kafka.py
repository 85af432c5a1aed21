"""Names of topics, headers and event types, and the origin of a record."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

DEFAULT_TENANT = "default"
#: The RocksDB table that caches answers.
ANSWERS_TABLE = "answers"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics and the consumer group of one environment.

    All topics must have the same number of partitions. `prefix` starts every topic name. `consumer_group` is the full
    name of the group, any prefix included.
    """

    prefix: str = ""
    consumer_group: str = "grok-insights"

    @property
    def conversations(self) -> str:
        """Conversations from producers and the gateway."""
        return f"{self.prefix}conversations"

    @property
    def rehomed(self) -> str:
        """Records sent on to the owner partition of their text."""
        return f"{self.prefix}conversations.rehomed"

    @property
    def dead_letters(self) -> str:
        """Records that cannot be processed, with the reason."""
        return f"{self.prefix}conversations.dlq"

    @property
    def insights(self) -> str:
        """One event for each processed conversation."""
        return f"{self.prefix}insights"

    @property
    def inputs(self) -> tuple[str, str]:
        """The topics that workers consume."""
        return self.conversations, self.rehomed

    @property
    def messages(self) -> tuple[str, str, str, str]:
        """The topics that hold conversations and their outcomes; `audit` reads them."""
        return *self.inputs, self.dead_letters, self.insights

    @property
    def answers_changelog(self) -> str:
        """The changelog of the table `answers`; workers restore their cache from it."""
        prefix = "" if self.consumer_group.startswith(self.prefix) else self.prefix
        return f"{prefix}{self.consumer_group}-{ANSWERS_TABLE}-changelog"

    @property
    def replay_ledger(self) -> str:
        """The dead letters that were replayed. Only `dlq` reads and writes it."""
        return f"{self.dead_letters}.replayed"


class Header:
    """Names of Kafka headers: those of CloudEvents in binary mode, and our own."""

    SPEC_VERSION = "ce_specversion"
    ID = "ce_id"
    TYPE = "ce_type"
    SOURCE = "ce_source"
    TIME = "ce_time"
    CONTENT_TYPE = "content-type"
    TENANT = "tenant"
    TRACEPARENT = "traceparent"
    #: What the gateway repaired, as in `schemas.conversation.Repair`: the worker cannot see it.
    REPAIRED = "repaired"


class EventType(StrEnum):
    """Values of `ce_type`."""

    CONVERSATION = "grok-insights.conversation"
    INSIGHT = "grok-insights.insight"


class Origin(msgspec.Struct, frozen=True):
    """Where a record was first read; for a repartitioned one, its offset in `conversations`."""

    topic: str
    partition: int
    offset: int
