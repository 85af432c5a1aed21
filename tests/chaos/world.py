"""A world: the whole service with three brokers, Postgres, the stand-in, the gateway and two to four workers."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.dev.local.postgres import Postgres
from streams.dev.local.process import ProcessLog as ProcessLog
from streams.kafka.admin import topic_configs
from streams.postgres.migrations import migrate_database
from tests.chaos.admin import admin_of
from tests.chaos.cluster import Cluster
from tests.chaos.database_faults import DatabaseFaults
from tests.chaos.feeder import Feeder
from tests.chaos.fleet import WORKERS_MIN, Fleet
from tests.chaos.grok import Grok
from tests.chaos.infrastructure import Infrastructure
from tests.chaos.judge import judge
from tests.chaos.oracle import PARTITIONS, Kind, Oracle
from tests.chaos.repeated_calls import FaultHistory
from tests.chaos.verdict import Verdict
from tests.chaos.witness import Witness
from tests.chaos.worker_faults import WorkerFaults
from tests.support.processes import Service
from tests.support.topics import TOPICS
from tests.support.waiting import became_true

#: Long enough, at the feeder's pace, for each worker to have hundreds of calls in flight.
LATENCY_S = (1.0, 4.0)
_READY_WITHIN_S = 120
#: At the end, calls that are no longer needed end within their latency; commits come three times a second.
_QUIET_WITHIN_S, _LATE_S = 20.0, 1.0
_SETTINGS = {
    "TOPIC_PARTITIONS": str(PARTITIONS),
    "TOPIC_REPLICATION_FACTOR": "3",
    "RATE_LIMIT_PER_MINUTE": "1000000",
    "GROK_TIMEOUT_S": "3600",  # what hangs, hangs until it is released
    "COOLDOWN_SECONDS": "1",
}
#: Which transaction wrote each row first: Postgres knows when it was committed, and the judge compares that with the
#: times of offsets' commits.
_WRITTEN = (
    "ALTER SYSTEM SET track_commit_timestamp = on",
    "CREATE TABLE chaos_written (tenant text, conversation_id text, PRIMARY KEY (tenant, conversation_id))",
    """CREATE FUNCTION chaos_note_written() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_written VALUES (NEW.tenant, NEW.conversation_id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$""",
    "CREATE TRIGGER chaos_note_written AFTER INSERT ON insights FOR EACH ROW EXECUTE FUNCTION chaos_note_written()",
)


@dataclass
class World:
    """Use `build`; `settle` gives the verdict on all that happened so far."""

    oracle: Oracle
    fleet: Fleet
    feeder: Feeder
    grok: Grok
    infrastructure: Infrastructure
    worker_faults: WorkerFaults
    witness: Witness
    supervisor: "asyncio.Task[None]"
    timeline: Path

    def note(self, what: str) -> None:
        """Adds a line to the timeline, which explains a failed round."""
        with self.timeline.open("a") as timeline:
            timeline.write(f"{datetime.now(UTC).isoformat()} {what}\n")

    async def settle(self, within_s: float, *, release: bool) -> Verdict:
        """Waits until every due case has its outcome, then judges; what is absent by then is missing.

        With `release` the hanging texts are due too, and offsets must have reached the end."""
        await asyncio.to_thread(self.grok.release if release else self.grok.hold)
        self.fleet.fill_up(WORKERS_MIN)
        self.note("the faults are over")
        await self.feeder.settled()
        deadline_s = time.monotonic() + within_s
        await self._rows_are_there(deadline_s, release=release)
        while True:
            began_s = time.monotonic()
            verdict = await self._verdict(release=release)
            self.note(f"looked: {dict(verdict.counts)}")
            unfinished = verdict.counts["missing"] + verdict.counts["unbalanced"]
            if not unfinished or time.monotonic() > deadline_s:
                return await self._last_look() if release else self._noted(verdict)
            await asyncio.sleep(max(1.0, time.monotonic() - began_s))  # looking is work too, on the same machine

    async def _last_look(self) -> Verdict:
        """Judges when no call is in flight any more, so that late calls and commits are seen too."""
        await became_true(lambda: asyncio.to_thread(lambda: not self._in_flight()), _QUIET_WITHIN_S, 0.2)
        await asyncio.sleep(_LATE_S)
        return self._noted(await self._verdict(release=True))

    def _noted(self, verdict: Verdict) -> Verdict:
        self.fleet.tell(verdict)
        verdict.figures["shards_rebuilt"] = self.fleet.shards_rebuilt()
        self.note(f"judged: {dict(verdict.counts)}")
        return verdict

    async def _verdict(self, *, release: bool) -> Verdict:
        if self.supervisor.done():
            self.supervisor.result()  # its error
        evidence = await self.witness.look()
        moves_s = sorted(at_ms / 1000 for at_ms in evidence.generations.values())
        history = FaultHistory(self.fleet.deaths, self.infrastructure.outages, moves_s, self.fleet.freezes)
        verdict = judge(self.oracle, self.feeder.posted, evidence, history, everything_is_due=release)
        verdict.figures["accepted_by_gateway"] = self.feeder.accepted_by_gateway
        verdict.figures["frozen_out"] = sum(
            history.moves(freeze.from_s, freeze.to_s) > 0 for freeze in self.fleet.freezes
        )
        return verdict

    async def _rows_are_there(self, deadline_s: float, *, release: bool) -> None:
        """Before the first look, which is work for the machine: waits until about as many rows are there as must be."""
        without = {Kind.BROKEN} if release else {Kind.BROKEN, Kind.HANGS}
        owed = sum(self.oracle.case(number).kind not in without for number in self.feeder.posted.confirmed)
        while await self.witness.row_count() < owed and time.monotonic() < deadline_s:
            await asyncio.sleep(0.5)

    async def under_load(self, calls: int, within_s: float) -> bool:
        """Whether that many calls were in flight at the stand-in in time."""
        return await became_true(lambda: asyncio.to_thread(lambda: self._in_flight() >= calls), within_s, 0.2)

    def _in_flight(self) -> int:
        return int(self.grok.stats()["in_flight"])

    @property
    def happened(self) -> Counter[str]:
        """Counts of the faults that happened."""
        return self.fleet.happened + self.infrastructure.happened


@asynccontextmanager
async def build(folder: Path, seed: int, bug: str | None = None) -> AsyncIterator[World]:
    """Ready when two workers are; everything is ended at the end."""
    async with AsyncExitStack() as stack:
        log = stack.enter_context(closing(ProcessLog(folder / "servers.log")))
        cluster, postgres = Cluster(folder, log), Postgres(folder, log)
        stack.callback(cluster.stop)
        stack.callback(postgres.stop)
        await asyncio.gather(asyncio.to_thread(cluster.start), asyncio.to_thread(postgres.start))
        service = stack.enter_context(Service(folder, cluster.bootstrap_servers, postgres.url, **_SETTINGS))
        await _prepare_database(postgres)
        journal = folder / "journal.jsonl"
        journal.touch()
        await asyncio.to_thread(service.run, "topics")
        await _let_brokers_stamp(cluster.bootstrap_servers)
        await asyncio.to_thread(_start_servers, service, journal, seed)
        grok = Grok(f"http://127.0.0.1:{service.standin_port}")
        grok.hold()
        fleet = Fleet(service, grok.in_flight_by_caller, bug)
        fleet.fill_up(WORKERS_MIN)
        oracle = Oracle(seed)
        feeder = Feeder(oracle, cluster.bootstrap_servers, service.gateway_url)
        await stack.enter_async_context(feeder)
        if not await fleet.ready(_READY_WITHIN_S):
            raise AssertionError(f"the workers did not get ready, see {folder}")
        supervisor: asyncio.Task[None] = asyncio.create_task(fleet.supervise())
        stack.push_async_callback(_end, supervisor)
        infrastructure = Infrastructure(cluster, DatabaseFaults(postgres), grok, fleet.given_up)
        witness = Witness(cluster.bootstrap_servers, postgres.url, journal)
        faults = WorkerFaults(fleet, infrastructure.without_coordinator)
        yield World(oracle, fleet, feeder, grok, infrastructure, faults, witness, supervisor, folder / "timeline.log")


async def _prepare_database(postgres: Postgres) -> None:
    await asyncio.to_thread(migrate_database, postgres.url)
    connection = await asyncpg.connect(postgres.url)
    try:
        for statement in _WRITTEN:
            await connection.execute(statement)
    finally:
        await connection.close()
    await asyncio.to_thread(postgres.stop)
    await asyncio.to_thread(postgres.start)


async def _let_brokers_stamp(bootstrap_servers: str) -> None:
    """Lets the brokers stamp the service's records with the time of the append, not of the buffering.

    Conversations are excluded, since their producer sets the time of receipt. All settings of a topic are given, since
    this request resets the others.
    """
    async with admin_of(bootstrap_servers) as admin:
        await admin.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC, str(name), {**config, "message.timestamp.type": "LogAppendTime"}
                )
                for name, config in topic_configs(TOPICS).items()
                if name != TOPICS.conversations
            ]
        )


def _start_servers(service: Service, journal: Path, seed: int) -> None:
    least_s, most_s = map(str, LATENCY_S)
    service.start_standin(
        *("--latency-min-s", least_s, "--latency-max-s", most_s, "--seed", str(seed), "--journal", str(journal))
    )
    service.start_gateway()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
