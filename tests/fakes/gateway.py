"""Fakes of the gateway's dependencies: publisher, insight reader and lag source in memory, and a manual clock.

The tests in tests/contracts run the first three and the real ones through the same cases.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from schemas.insight import Insight
from streams.gateway.insights import Cursor, InsightFilter, InsightRecord
from streams.gateway.rate_limit import RateLimiter
from streams.gateway.routes import Dependencies
from streams.kafka.lag import Lag, LagCheck
from streams.kafka.producer import Outgoing
from streams.telemetry.health import Health


class FakePublisher:
    """Stores published records, or raises `failure` while it is set."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.failure: Exception | None = None

    async def publish(self, record: Outgoing) -> None:
        if self.failure is not None:
            raise self.failure
        self.records.append(record)

    async def check(self) -> None:
        if self.failure is not None:
            raise self.failure


class FakeReader:
    """Reads insights from a list of (tenant, record), or raises `failure` while it is set."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, InsightRecord]] = []
        self.failure: Exception | None = None

    async def conversation(self, tenant: str, conversation_id: str) -> InsightRecord | None:
        return next((row for row in self._of(tenant) if row.id == conversation_id), None)

    async def insights(
        self, tenant: str, wanted: InsightFilter, after: Cursor | None, limit: int
    ) -> list[InsightRecord]:
        rows = [row for row in self._of(tenant) if all(_MATCHES[k](row, v) for k, v in wanted.items())]
        rows.sort(key=_position, reverse=True)
        if after is not None:
            rows = [row for row in rows if _position(row) < (after.occurred_at, after.id)]
        return rows[:limit]

    async def check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _of(self, tenant: str) -> list[InsightRecord]:
        if self.failure is not None:
            raise self.failure
        return [row for owner, row in self.rows if owner == tenant]


class FakeLag:
    """Returns `lag`, or raises it if it is an exception."""

    def __init__(self) -> None:
        self.lag: Lag | Exception = Lag({0: 3, 1: 4}, seconds=1.5, members=1)

    async def read(self) -> Lag:
        if isinstance(self.lag, Exception):
            raise self.lag
        return self.lag


class ManualClock:
    """Monotonic seconds that the test advances."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class FakeDependencies:
    """Fake dependencies of a gateway. Health results are not cached."""

    def __init__(self, rate_limit_per_minute: int = 10_000) -> None:
        self.publisher = FakePublisher()
        self.reader = FakeReader()
        self.lag = FakeLag()
        self.clock = ManualClock()
        self.limiter = RateLimiter(rate_limit_per_minute)
        lag_check = LagCheck(self.lag)
        checks = {"broker": self.publisher.check, "database": self.reader.check, "lag": lag_check.check}
        self.dependencies = Dependencies(
            publisher=self.publisher,
            reader=self.reader,
            limiter=self.limiter,
            health=Health(checks, fresh_s=0),
            lag=lag_check,
            lag_soft_s=30,
            clock=self.clock,
        )


def insight_record(id: str, **changes: Any) -> InsightRecord:
    """Returns the record of an analysed conversation; `changes` replace its fields."""
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    insight = Insight(
        sentiment="negative",
        sentiment_score=-0.5,
        topics=("refund", "billing"),
        intent="complaint",
        urgency="high",
        summary="Card charged twice",
        action_needed=True,
        confidence=0.9,
        language="en",
    )
    fields: dict[str, Any] = {
        "outcome": "analysed",
        "occurred_at": noon,
        "received_at": noon,
        "analysed_at": noon,
        "prompt_tokens": 120,
        "completion_tokens": 40,
        "cost_usd_ticks": 5_000_000,
        "insight": insight,
        "source": "shop-chat",
        "text_key": "ab" * 32,
        "analysis_version": "v1",
        "model": "a-model",
    }
    return InsightRecord(id=id, **(fields | changes))


def _position(row: InsightRecord) -> tuple[datetime, str]:
    return row.occurred_at, row.id


_MATCHES: dict[str, Callable[[InsightRecord, Any], bool]] = {
    "since": lambda row, value: row.occurred_at >= value,
    "until": lambda row, value: row.occurred_at < value,
    "sentiment": lambda row, value: row.insight is not None and row.insight.sentiment == value,
    "topic": lambda row, value: row.insight is not None and value in row.insight.topics,
    "urgency": lambda row, value: row.insight is not None and row.insight.urgency == value,
    "source": lambda row, value: row.source == value,
    "outcome": lambda row, value: row.outcome == value,
}
