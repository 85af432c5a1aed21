"""The gateway's fake reader and the one on Postgres behave alike."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from agents.decode import Job
from schemas.insight import Insight
from schemas.kafka import Origin
from schemas.result import ConversationResult
from streams.dev.local.ports import free_port
from streams.gateway.insights import (
    RETRY_AFTER_S,
    Cursor,
    DatabaseUnavailable,
    InsightFilter,
    InsightRecord,
    PostgresInsightReader,
)
from streams.sinks.rows import RowSink
from streams.worker.offsets import Tracker
from tests.fakes.gateway import FakeReader, insight_record

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
EVERYTHING: InsightFilter = {}


class Store:
    """A reader under test, and a way to add records: to the fake, or to Postgres with the worker's sink."""

    def __init__(self, reader: FakeReader | PostgresInsightReader, sink: RowSink | None = None) -> None:
        self.reader = reader
        self._sink = sink

    async def put(self, *records: InsightRecord, tenant: str = "default") -> None:
        for record in records:
            if self._sink is not None:
                fields: dict[str, Any] = {name: getattr(record, name) for name in record.__struct_fields__}
                await self._sink.write([job_of(ConversationResult(tenant=tenant, origin=Origin("t", 0, 0), **fields))])
            else:
                assert isinstance(self.reader, FakeReader)
                self.reader.rows.append((tenant, record))

    async def ids(self, after: Cursor | None = None, limit: int = 100, **wanted: Any) -> list[str]:
        return [record.id for record in await self.reader.insights("default", wanted, after, limit)]


def job_of(result: ConversationResult) -> Job:
    record = ConsumerRecord("t", 0, 0, 0, 0, None, None, None, 0, 0, ())
    job = Job(Tracker(TopicPartition("t", 0), 0), record, was_rehomed=False)
    job.result = result
    return job


def an_insight(**changes: Any) -> Insight:
    insight = insight_record("any").insight
    assert insight is not None
    return msgspec.structs.replace(insight, **changes)


@pytest.fixture
async def postgres_store(database_url: str) -> AsyncIterator[Store]:
    sink, reader = RowSink(database_url), PostgresInsightReader(database_url)
    await sink.start()
    await reader.start()
    yield Store(reader, sink)
    await reader.stop()
    await sink.stop()


@pytest.fixture(params=["fake", "postgres"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "fake":
        return Store(FakeReader())
    real: Store = request.getfixturevalue("postgres_store")
    return real


@pytest.fixture(params=["fake", "postgres"])
async def unreachable(request: pytest.FixtureRequest) -> AsyncIterator[FakeReader | PostgresInsightReader]:
    """A reader whose database does not answer."""
    real = PostgresInsightReader(f"postgresql://user:secret@127.0.0.1:{free_port()}/none")
    await real.start()
    reader = FakeReader()
    reader.failure = DatabaseUnavailable("the database cannot answer", retry_after_s=RETRY_AFTER_S)
    yield reader if request.param == "fake" else real
    await real.stop()


async def test_a_record_comes_back_whole(store: Store) -> None:
    """By ID and in the list, with all fields or only the required ones."""
    full = insight_record("c-2", insight=an_insight(extra={"a": [1, {"b": None}]}, topics=()), reason="any")
    bare = insight_record("c-1", insight=None, source=None, text_key=None, analysis_version=None, model=None)
    await store.put(full, bare)
    assert await store.reader.conversation("default", "c-2") == full
    assert await store.reader.conversation("default", "c-1") == bare
    assert await store.reader.insights("default", EVERYTHING, None, 10) == [full, bare]


async def test_records_of_another_tenant_are_invisible(store: Store) -> None:
    """They look the same as an unknown ID."""
    await store.put(insight_record("theirs"), tenant="other")
    assert await store.reader.conversation("default", "theirs") is None
    assert await store.reader.conversation("default", "none") is None
    assert await store.ids() == []


async def test_the_newest_come_first_and_equal_times_by_id(store: Store) -> None:
    """Ids by code points, so that case and accents have one order; to the microsecond."""
    ids = ["a", "B", "Z", "_", "ä", "€", "😀", "a-", "aa", "10", "9"]
    await store.put(*(insight_record(id) for id in ids))
    await store.put(insight_record("new", occurred_at=NOON + timedelta(microseconds=1)))
    assert await store.ids() == ["new", *sorted(ids, reverse=True)]


async def test_a_page_continues_after_its_cursor(store: Store) -> None:
    """Also between equal times, and if the item of the cursor no longer exists."""
    await store.put(*(insight_record(f"c-{n}", occurred_at=NOON + timedelta(seconds=n // 3)) for n in range(9)))
    assert await store.ids(limit=2) == ["c-8", "c-7"]
    assert await store.ids(Cursor(NOON + timedelta(seconds=2), "c-7"), limit=2) == ["c-6", "c-5"]
    assert await store.ids(Cursor(NOON + timedelta(seconds=1), "c-4x")) == ["c-4", "c-3", "c-2", "c-1", "c-0"]


async def test_since_is_inclusive_and_until_exclusive(store: Store) -> None:
    """Adjacent intervals count each conversation once."""
    await store.put(*(insight_record(f"c-{n}", occurred_at=NOON + timedelta(microseconds=n)) for n in range(3)))
    assert await store.ids(since=NOON + timedelta(microseconds=1)) == ["c-2", "c-1"]
    assert await store.ids(until=NOON + timedelta(microseconds=1)) == ["c-0"]


async def test_any_filter_finds_the_same(postgres_store: Store) -> None:
    """For random records and queries, the fake and Postgres return the same pages."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice, fake = random.Random(seed), Store(FakeReader())
    records = [_random_record(dice, number) for number in range(60)]
    for store in (fake, postgres_store):
        await store.put(*records)
    for _ in range(150):
        wanted, after, limit = _random_filter(dice), _random_cursor(dice), dice.randint(1, 30)
        found = await postgres_store.reader.insights("default", wanted, after, limit)
        assert found == await fake.reader.insights("default", wanted, after, limit), (wanted, after, limit)


def _random_time(dice: random.Random) -> datetime:
    return NOON + timedelta(microseconds=dice.randrange(8))


def _random_record(dice: random.Random, number: int) -> InsightRecord:
    insight = an_insight(
        sentiment=dice.choice(["negative", "positive"]),
        urgency=dice.choice(["low", "high"]),
        topics=tuple(dice.sample(["refund", "billing", "Refund"], dice.randrange(3))),
    )
    return insight_record(
        f"{dice.choice('aBä')}{number}",
        occurred_at=_random_time(dice),
        insight=dice.choice([insight, insight, None]),
        source=dice.choice(["app", "App", None]),
        outcome=dice.choice(["analysed", "cached", "filtered", "dead"]),
    )


def _random_filter(dice: random.Random) -> InsightFilter:
    values = {
        "since": _random_time(dice),
        "until": _random_time(dice),
        "sentiment": dice.choice(["negative", "positive"]),
        "topic": dice.choice(["refund", "Refund", "none"]),
        "urgency": dice.choice(["low", "high"]),
        "source": dice.choice(["app", "App", "none"]),
        "outcome": dice.choice(["analysed", "cached", "filtered", "dead"]),
    }
    names = dice.sample(list(values), dice.choice([0, 1, 1, 2, 2, 3]))
    return {name: values[name] for name in names}


def _random_cursor(dice: random.Random) -> Cursor | None:
    return dice.choice([None, Cursor(_random_time(dice), f"{dice.choice('aBä')}{dice.randrange(60)}")])


async def test_a_database_that_does_not_answer_is_named(unreachable: FakeReader | PostgresInsightReader) -> None:
    """Every query and the check fail, with a time to retry."""
    with pytest.raises(DatabaseUnavailable) as refused:
        await unreachable.conversation("default", "c-1")
    with pytest.raises(DatabaseUnavailable):
        await unreachable.insights("default", EVERYTHING, None, 1)
    with pytest.raises(DatabaseUnavailable):
        await unreachable.check()
    assert refused.value.retry_after_s == 5


async def test_the_check_passes_while_the_database_answers(store: Store) -> None:
    """Also while the table is empty."""
    await store.reader.check()
