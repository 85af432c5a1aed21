"""Kafka and Postgres for a whole benchmark, and for each run new topics, an empty table and a new stand-in."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams.dev.local.brokers import Kafka
from streams.dev.local.postgres import Postgres
from streams.dev.local.process import ProcessLog
from streams.postgres.migrations import migrate_database
from tests.bench.candidates.work import CONVERSATIONS, GROUP, INSIGHTS
from tests.support.processes import Service
from tests.support.waiting import wait_until

Latency = tuple[float, float]
INSTANT: Latency = (0.0, 0.0)
_REHOMED = "conversations.rehomed"
_GROUP_EMPTY_WITHIN_S = 60


class Used(NamedTuple):
    """CPU seconds, and bytes of all topics."""

    kafka_s: float
    postgres_s: float
    broker_bytes: int


@dataclass(frozen=True)
class Environment:
    """The parts that all runs share."""

    folder: Path
    bootstrap_servers: str
    database_url: str
    _kafka_pid: int
    _postgres_pid: int

    @asynccontextmanager
    async def run(self, name: str, partitions: int = 8, latency: Latency = INSTANT) -> AsyncIterator["Run"]:
        """Starts a run without anything that an earlier one left in topics and table."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        rows = await asyncpg.connect(self.database_url)
        with Service(folder, self.bootstrap_servers, self.database_url, TOPIC_PARTITIONS=str(partitions)) as service:
            try:
                run = Run(service, rows, admin)
                await run.clean()
                await asyncio.to_thread(run.start_standin, latency)
                yield run
            finally:
                await rows.close()
                await admin.close()

    def used(self) -> Used:
        """What Kafka and Postgres have used so far. Ended backends are forgotten: compare while clients live."""
        data = self.folder / "kafka" / "data"
        logs = (log for folder in data.iterdir() if _is_of_a_topic(folder) for log in folder.glob("*.log"))
        return Used(_cpu_s(self._kafka_pid), _cpu_s(self._postgres_pid), sum(log.stat().st_size for log in logs))


class CommittedRow(NamedTuple):
    """Times are Unix seconds: when the broker received the record, and when its row was committed."""

    id: str
    received_s: float
    committed_s: float


@dataclass
class Run:
    """Processes of one run, and what can be seen of their work from outside."""

    service: Service
    rows: asyncpg.Connection
    _admin: AIOKafkaAdminClient

    async def clean(self) -> None:
        """No topics but new ones, no committed offsets, no rows."""
        topics = [name for name in await self._admin.list_topics() if not name.startswith("__")]
        if topics:
            await self._admin.delete_topics(topics)
        await self._group_is_empty()
        await self.rows.execute("TRUNCATE insights")
        await self.rows.execute("CHECKPOINT")
        await asyncio.to_thread(self.service.run, "topics")

    def start_standin(self, latency: Latency) -> None:
        """Starts the stand-in that later workers use."""
        port = self.service.free_port()
        options = ["--port", str(port), "--latency-min-s", str(latency[0]), "--latency-max-s", str(latency[1])]
        self.service.start_command("standin", [sys.executable, "-m", "tests.bench.fast_standin", *options])
        self.service.standin_port = port
        wait_until(lambda: self.service.standin("control/stats"), timeout_s=20, what="the stand-in answers")
        self.service.settings |= {
            "ANALYSER": "grok",
            "GROK_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "GROK_MODEL": "standin",
            "XAI_API_KEY": "bench",
        }

    def stats(self) -> dict[str, Any]:
        """The stand-in's figures."""
        return dict(self.service.standin("control/stats"))

    async def count_rows(self) -> int:
        return int(await self.rows.fetchval("SELECT count(*) FROM insights"))

    async def committed_rows(self) -> list[CommittedRow]:
        """Returns all rows in the order of their commit, by Postgres' own record."""
        found = await self.rows.fetch(
            "SELECT conversation_id, extract(epoch FROM received_at)::float8 AS received_s,"
            " extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS committed_s"
            " FROM insights ORDER BY committed_s"
        )
        return [CommittedRow(*row) for row in found]

    async def count_conversations(self) -> int:
        """Records that were produced to the topic of conversations."""
        return sum((await self._end_offsets(CONVERSATIONS)).values())

    async def wal_bytes(self) -> int:
        """Returns what Postgres has written to its log so far."""
        return int(await self.rows.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))

    async def table_bytes(self) -> int:
        """The table with its indexes."""
        return int(await self.rows.fetchval("SELECT pg_total_relation_size('insights')"))

    async def count_events(self) -> int:
        """Records in the results topic."""
        return sum((await self._end_offsets(INSIGHTS)).values())

    async def uncommitted(self) -> int:
        """Records of the input topics beyond the group's committed offsets."""
        committed = await self._admin.list_consumer_group_offsets(GROUP)
        ends = {**await self._end_offsets(CONVERSATIONS), **await self._end_offsets(_REHOMED)}
        offsets = {partition: max(0, committed[partition].offset) for partition in ends if partition in committed}
        return sum(end - offsets.get(partition, 0) for partition, end in ends.items())

    async def _end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        async with AIOKafkaConsumer(bootstrap_servers=self.service.settings["KAFKA_BOOTSTRAP_SERVERS"]) as consumer:
            await consumer._client.add_topic(topic)
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            return dict(await consumer.end_offsets(partitions))

    async def _group_is_empty(self) -> None:
        """Members that were killed count until their session times out."""
        async with asyncio.timeout(_GROUP_EMPTY_WITHIN_S):
            while await self._members():
                await asyncio.sleep(0.1)

    async def _members(self) -> list[Any]:
        if GROUP not in [name for name, _ in await self._admin.list_consumer_groups()]:
            return []
        described = await self._admin.describe_consumer_groups([GROUP])
        return list(described[0].to_object()["groups"][0]["members"])


@contextmanager
def environment(folder: Path) -> Iterator[Environment]:
    """Apache Kafka, one node, and a migrated Postgres that remembers when each transaction was committed."""
    with (
        closing(ProcessLog(folder / "kafka.log")) as kafka_log,
        closing(ProcessLog(folder / "postgres.log")) as postgres_log,
    ):
        kafka, postgres = Kafka(folder, kafka_log), Postgres(folder, postgres_log)
        postgres.start()
        try:
            migrate_database(postgres.url)
            asyncio.run(_remember_commit_times(postgres.url))
            postgres.stop()
            postgres.start()
            kafka.start()
            assert kafka.pid is not None and postgres.pid is not None  # noqa: PT018
            yield Environment(folder, kafka.bootstrap_servers, postgres.url, kafka.pid, postgres.pid)
        finally:
            kafka.stop()
            postgres.stop()


async def _remember_commit_times(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    await connection.close()


def _is_of_a_topic(folder: Path) -> bool:
    """Whether it is a partition of a topic of ours. Deleted ones stay for a while and may vanish at any moment."""
    return folder.is_dir() and not folder.name.startswith("__") and not folder.name.endswith("-delete")


def _cpu_s(pid: int) -> float:
    """User and system time of a process and all its descendants."""
    process, used_s = psutil.Process(pid), 0.0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used_s += sum(member.cpu_times()[:2])
    return used_s
