"""Workers of a group on real brokers: Faust assigns and restores, and only our reader reads the inputs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from aiokafka import TopicPartition
from faust.types import StreamT

from agents.analyse import Flight
from agents.analyst import Analyst
from agents.decode import KafkaRecord, Tracker
from streams.engine.answers_table import TableAnswers
from streams.engine.app import InputChannel, WorkerApp, faust_connection
from streams.engine.consumer import MemberConsumer
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.producer import ConfirmedProducer, Outgoing
from streams.worker import lifecycle
from streams.worker.fencing import Fence
from streams.worker.intake import Fetch, Intake
from streams.worker.lifecycle import Lifecycle
from streams.worker.rebalance import Rebalance
from streams.worker.timings import Timings
from tests.contracts.conftest import PARTITIONS, Cluster
from tests.support.factories import a_job, a_record
from tests.support.waiting import eventually

TIMES = Timings(rebalance_timeout_s=2.0, drain_s=0.5, stop_drain_s=0.5, commit_interval_s=0.1)
ANSWERS = 300


class Finishing:
    """Acts as the analyst: finishes every record at once, and remembers it."""

    def __init__(self) -> None:
        self.partitions = 0
        self.taken: list[tuple[str, int, int]] = []

    async def room(self) -> int:
        return 100

    def take(self, tracker: Tracker, records: Sequence[KafkaRecord], *, rehomed: bool) -> None:
        tracker.admit([record.offset for record in records])
        for record in records:
            self.taken.append((record.topic, record.partition, record.offset))
            tracker.finish(record.offset)

    async def drain(self, within_s: float, keep_s: float) -> None: ...

    def shorten_drain(self, keep_s: float) -> None: ...

    def forget(self) -> None: ...


class Member:
    """A worker without its sinks, put together as streams.app does it."""

    def __init__(self, cluster: Cluster, offset_reader: OffsetReader, folder: Path) -> None:
        self.life, self.analyst, topics = Lifecycle(TIMES), Finishing(), cluster.topics
        self.app = WorkerApp(
            self.life,
            topics,
            offset_reader.end_offsets,
            broker_session_timeout=cluster.session_timeout_s,
            broker_heartbeat_interval=0.5,
            broker_rebalance_timeout=TIMES.rebalance_timeout_s,
            **faust_connection(cluster.options, topics, folder),
        )
        analyst, channel = cast(Analyst, self.analyst), InputChannel(self.app)
        self.intake = Intake(channel, analyst, offset_reader, cluster.options, topics, self.app.commit_as, self.life)
        rebalance = Rebalance(
            self.app, self.intake, analyst, Fence(self.app.lease), offset_reader, topics, self.life, TIMES
        )

        @self.app.agent(channel, name="analyst")
        async def analyst_agent(fetches: StreamT[Fetch]) -> None:
            async for fetch in fetches:
                self.intake.process(fetch)

        self.life.parts = [rebalance]
        self.life.on_drain = rebalance.leave

    @property
    def leaked(self) -> int:
        """Returns the input records that Faust fetched."""
        return cast(MemberConsumer, self.app.consumer).leaked

    @property
    def reads(self) -> set[int]:
        """The partitions of `conversations` that it reads."""
        current = self.intake.current
        return {tp.partition for tp in current.partitions if tp.topic in self.app.inputs} if current else set()

    def restored(self, partition: int) -> int:
        """Returns how many answers the shard has."""
        keys = [b"answer %d" % n for n in range(ANSWERS)]
        return sum(self.app.answers.store.read(partition, key) is not None for key in keys)


@pytest.fixture(autouse=True)
def _no_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables the last resort, which would end the tests' process."""
    monkeypatch.setattr(lifecycle, "end_process_within", lambda _: None)


@asynccontextmanager
async def running(member: Member) -> AsyncIterator[Member]:
    await member.app.start()
    try:
        yield member
    finally:
        await member.app.stop()
        assert member.life.failure is None
        assert member.app.crash_reason is None


async def produce(producer: ConfirmedProducer, cluster: Cluster, each: int) -> None:
    """Sends that many records to each partition of both inputs."""
    for topic in cluster.topics.inputs:
        records = [Outgoing(b"k", b"v", [], n % PARTITIONS) for n in range(PARTITIONS * each)]
        assert all(isinstance(at, int) for at in await producer.send_all(topic, records))


async def test_members_share_the_inputs_and_faust_fetches_none_of_them(
    cluster: Cluster, offset_reader: OffsetReader, confirmed: ConfirmedProducer, tmp_path: Path
) -> None:
    """Through a join, a leave and the recovery of the table: every record is taken, and those committed only once."""
    first, second = (Member(cluster, offset_reader, tmp_path / name) for name in ("first", "second"))
    await keep_answers(first, cluster, confirmed)
    await produce(confirmed, cluster, 20)
    async with running(first):
        await reads(first, set(range(PARTITIONS)))
        assert [first.restored(n) for n in range(PARTITIONS)] == [ANSWERS, 0, 0, 0]
        await all_committed(cluster, offset_reader, 20)
        async with running(second):
            await eventually(lambda: both_read(first, second), what="both members read", timeout_s=60)
            await produce(confirmed, cluster, 20)
            await all_committed(cluster, offset_reader, 40)
        await reads(first, set(range(PARTITIONS)))
        await produce(confirmed, cluster, 20)
        await all_committed(cluster, offset_reader, 60)
        leaked = first.leaked
    assert (leaked, second.leaked) == (0, 0)
    taken = first.analyst.taken + second.analyst.taken
    wanted = {(topic, n, at) for topic in cluster.topics.inputs for n in range(PARTITIONS) for at in range(60)}
    assert set(taken) == wanted
    assert second.analyst.taken


async def test_a_restart_continues_at_the_last_commit(
    cluster: Cluster, offset_reader: OffsetReader, confirmed: ConfirmedProducer, tmp_path: Path
) -> None:
    """A stop commits all that is finished: nothing is taken twice."""
    taken = []
    for _ in range(2):
        member = Member(cluster, offset_reader, tmp_path / "data")
        await produce(confirmed, cluster, 5)
        async with running(member):
            await eventually(lambda member=member: took(member, 5 * 2 * PARTITIONS), timeout_s=60)
        taken += member.analyst.taken
    assert len(taken) == len(set(taken)) == 2 * 5 * 2 * PARTITIONS


async def keep_answers(member: Member, cluster: Cluster, producer: ConfirmedProducer) -> None:
    """Writes answers into the changelog only: no shard is open here."""
    flights = []
    for n in range(ANSWERS):
        flight = Flight(b"answer %d" % n, a_job(a_record(partition=0)))
        flight.value = b"kept"
        flights.append(flight)
    answers = TableAnswers(member.app.answers, producer, cluster.topics.answers_changelog)
    assert await answers.put(flights) == []


async def reads(member: Member, partitions: set[int]) -> None:
    async def as_wanted() -> bool:
        return member.reads == partitions

    await eventually(as_wanted, what=f"the member reads {partitions}", timeout_s=60)


async def both_read(first: Member, second: Member) -> bool:
    await asyncio.sleep(0)
    return bool(second.reads) and bool(first.reads) and first.reads | second.reads == set(range(PARTITIONS))


async def took(member: Member, count: int) -> bool:
    return len(member.analyst.taken) >= count


async def all_committed(cluster: Cluster, offset_reader: OffsetReader, each: int) -> None:
    """Returns when every record of both inputs is finished and committed."""
    partitions = [TopicPartition(topic, n) for topic in cluster.topics.inputs for n in range(PARTITIONS)]

    async def is_so() -> bool:
        return set((await offset_reader.committed_offsets(partitions)).values()) == {each}

    await eventually(is_so, what=f"{each} records of each partition are committed", timeout_s=60)
