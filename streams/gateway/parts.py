"""What the gateway's handlers need from outside, and the bundle in which they get it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from schemas.errors import Retryable
from streams.gateway.cursor import Cursor
from streams.gateway.filters import InsightFilter
from streams.gateway.insight_record import InsightRecord
from streams.gateway.limiter import RateLimiter
from streams.gateway.record import ConversationRecord
from streams.kafka.lag import LagCheck
from streams.telemetry.health import Health


class BrokerUnavailable(Retryable):
    """No confirmation from the broker."""


class DatabaseUnavailable(Retryable):
    """No answer from Postgres."""


class Publisher(Protocol):
    """Where accepted conversations go."""

    async def publish(self, record: ConversationRecord) -> None:
        """Returns only when all in-sync replicas have the record.

        Raises BrokerUnavailable when that is not confirmed in time (the record may be stored all the same), or Rejected
        when the broker will not take a record of that size.
        """


class InsightReader(Protocol):
    """Where insights are read. Both methods raise DatabaseUnavailable."""

    async def conversation(self, tenant: str, conversation_id: str) -> InsightRecord | None:
        """The record of one conversation, or None when there is none (yet)."""

    async def insights(
        self, tenant: str, wanted: InsightFilter, after: Cursor | None, limit: int
    ) -> list[InsightRecord]:
        """At most `limit` records that come after the cursor, newest first."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything is built by the caller and closed by the caller. `clock` gives monotonic seconds."""

    publisher: Publisher
    reader: InsightReader
    limiter: RateLimiter
    health: Health
    lag: LagCheck
    lag_soft_s: float
    clock: Callable[[], float]


PARTS = web.AppKey("PARTS", Parts)
