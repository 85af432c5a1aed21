"""One candidate drains a full topic; everything is measured from outside the process.

The topic is filled before the candidate starts. Time runs from the commit of the first batch of rows to the commit of
the last one, and counts the rows after the first batch, so that start-up is left out for every candidate alike. CPU is
what the candidate's process used in between.
"""

import asyncio
import sys
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from tests.bench.environment import INSTANT, Environment, Latency, Run
from tests.bench.workload import KeyedBy, Workload, produce
from tests.support.processes import Process

_SAMPLE_EVERY_S = 0.02
_LOOK_EVERY_S = 0.5
#: Longer than any start and any rebalance: a candidate that writes nothing for so long will write nothing more.
_GIVEN_UP_AFTER_S = 60.0
_FINISHED_WITHIN_S = 30.0


class Candidate(NamedTuple):
    """`module` is run with python -m; `saves_calls` promises one call for each distinct text."""

    name: str
    title: str
    module: str
    keyed_by: KeyedBy = "text"
    saves_calls: bool = False


HANDWRITTEN = "handwritten"
CANDIDATES = {
    candidate.name: candidate
    for candidate in (
        Candidate("worker-text", "grok-insights worker, keyed by text", "streams", "text", True),
        Candidate("worker-id", "grok-insights worker, keyed by ID", "streams", "id", True),
        Candidate(HANDWRITTEN, "aiokafka by hand", "tests.bench.candidates.handwritten"),
        Candidate("faust", "Faust agent", "tests.bench.candidates.faust_agent"),
        Candidate("faststream", "FastStream", "tests.bench.candidates.faststream_app"),
    )
}


class Others(msgspec.Struct):
    """The cost of one conversation elsewhere: CPU microseconds, bytes on one broker, in Postgres' log and table."""

    kafka_us: float
    postgres_us: float
    broker_bytes: float
    wal_bytes: float
    table_bytes: float


class Drain(msgspec.Struct):
    """The result of one run. `rate` is conversations a second, `cpu_us` user and system time for one conversation."""

    candidate: str
    latency_s: Latency
    records: int
    rows: int
    events: int
    uncommitted: int
    calls: int
    distinct: int
    rate: float
    cpu_us: float
    rss_mb: float
    others: Others

    @property
    def is_complete(self) -> bool:
        """Every conversation has its row and its event, and its record is committed."""
        return self.rows == self.records and self.events >= self.records and self.uncommitted == 0

    @property
    def is_as_promised(self) -> bool:
        return self.is_complete and (self.calls == self.distinct or not CANDIDATES[self.candidate].saves_calls)


@dataclass
class ProcessUse:
    """CPU time and memory of a process over time, sampled until cancelled."""

    pid: int
    times_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)

    async def sample(self, every_s: float = _SAMPLE_EVERY_S) -> None:
        process = psutil.Process(self.pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            with process.oneshot():
                used = process.cpu_times()
                self.rss_bytes.append(process.memory_info().rss)
            self.times_s.append(time.time())
            self.cpu_s.append(used.user + used.system)
            await asyncio.sleep(every_s)

    def cpu_between(self, began_s: float, ended_s: float) -> float:
        """CPU seconds used between two points of Unix time, as near as the samples tell."""
        last = len(self.times_s) - 1
        first, second = (min(bisect_left(self.times_s, at_s), last) for at_s in (began_s, ended_s))
        return self.cpu_s[second] - self.cpu_s[first]


async def drain(
    env: Environment, candidate: Candidate, workload: Workload, latency: Latency = INSTANT, max_in_flight: int = 500
) -> Drain:
    """Fills the topic, starts the candidate, and ends it when all rows are there or none has come for a minute."""
    async with env.run(candidate.name, latency=latency) as run:
        await produce(env.bootstrap_servers, workload.conversations(), candidate.keyed_by)
        before, wal_before = env.used(), await run.wal_bytes()
        process = start_candidate(run, candidate, max_in_flight)
        use = ProcessUse(process.process.pid)
        sampling = asyncio.create_task(use.sample())
        try:
            await rows_written(run, workload.records, process)
            await work_finished(run, workload.records)
        finally:
            sampling.cancel()
        after, count = env.used(), workload.records
        others = Others(
            kafka_us=1e6 * (after.kafka_s - before.kafka_s) / count,
            postgres_us=1e6 * (after.postgres_s - before.postgres_s) / count,
            broker_bytes=after.broker_bytes / count,
            wal_bytes=(await run.wal_bytes() - wal_before) / count,
            table_bytes=await run.table_bytes() / count,
        )
        await asyncio.to_thread(process.stop)
        return await _drain(run, candidate, workload, latency, use, others)


def start_candidate(run: Run, candidate: Candidate, max_in_flight: int, name: str = "candidate") -> Process:
    """Any number may run side by side under different names."""
    command = [sys.executable, "-m", candidate.module, *(["worker"] if candidate.module == "streams" else [])]
    data_dir = str(run.service.folder / "data" / name)
    settings = {"MAX_IN_FLIGHT": str(max_in_flight), "WORKER_METRICS_PORT": "0", "DATA_DIR": data_dir}
    return run.service.start_command(name, command, **settings)


async def rows_written(run: Run, count: int, *processes: Process) -> None:
    """Returns when there are `count` rows, or no more come. Raises when a process has ended by itself."""
    seen, seen_at_s = 0, time.monotonic()
    while (rows := await run.count_rows()) < count and time.monotonic() < seen_at_s + _GIVEN_UP_AFTER_S:
        for process in processes:
            if process.process.poll() is not None:
                raise RuntimeError(f"a candidate ended by itself, see {process.log}:\n{_tail(process.log)}")
        if rows > seen:
            seen, seen_at_s = rows, time.monotonic()
        await asyncio.sleep(_LOOK_EVERY_S)


async def work_finished(run: Run, count: int) -> None:
    """Returns when the group has committed everything and there are `count` events, or when that takes too long.

    Both count: some candidates commit a record before its event is confirmed, others seconds later.
    """
    deadline_s = time.monotonic() + _FINISHED_WITHIN_S
    while time.monotonic() < deadline_s and (await run.uncommitted() or await run.count_events() < count):
        await asyncio.sleep(_LOOK_EVERY_S)


async def _drain(
    run: Run, candidate: Candidate, workload: Workload, latency: Latency, use: ProcessUse, others: Others
) -> Drain:
    committed_s = [row.committed_s for row in await run.committed_rows()]
    if not committed_s:
        raise RuntimeError(f"{candidate.name} wrote no row, see {run.service.folder}")
    began_s, ended_s = committed_s[0], committed_s[-1]
    timed = len(committed_s) - bisect_right(committed_s, began_s)
    stats = await asyncio.to_thread(run.stats)
    return Drain(
        candidate=candidate.name,
        latency_s=latency,
        records=workload.records,
        rows=len(committed_s),
        events=await run.count_events(),
        uncommitted=await run.uncommitted(),
        calls=stats["calls"],
        distinct=workload.distinct,
        rate=timed / max(ended_s - began_s, 1e-6),
        cpu_us=1e6 * use.cpu_between(began_s, ended_s) / max(timed, 1),
        rss_mb=max(use.rss_bytes) / 2**20,
        others=others,
    )


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
