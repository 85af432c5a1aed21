"""The workers: killed, frozen, stopped and restarted on purpose, with a log of it for the judge."""

import asyncio
import hashlib
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tests.chaos.repeated_calls import Death, Freeze
from tests.chaos.verdict import Verdict
from tests.support.processes import Process, Service, get
from tests.support.waiting import became_true

WORKERS_MIN, WORKERS_MAX = 2, 4
#: The promise is 10 s; the machine may be busy.
_STOP_WITHIN_S = 12.0
#: Log lines of a worker's own defects; libraries may also forget exceptions.
_DEFECTS = (
    *('"decode_failed"', '"fetch_not_taken"', '"attempt_failed"', '"stage_failed"'),
    *('"record_held_back"', '"input_fetched_by_faust"'),
    "exception was never retrieved.*/(streams|agents)/",
)
#: The files of RocksDB that a broken disk would be noticed by.
_TORN = ("*.sst", "MANIFEST*", "*.log")


class Member:
    """One worker's place: its folder and key stay the same over many processes."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.data_dir = folder / "data" / name
        self.api_key = f"key-of-{name}"
        self.caller = hashlib.sha256(self.api_key.encode()).hexdigest()[:8]
        self.process: Process | None = None
        self.port = 0
        self.log = folder / f"{name}.log"
        self.is_frozen = False
        #: Whether it should run: it was not killed or stopped on purpose.
        self.is_wanted = False

    @property
    def is_alive(self) -> bool:
        """Its process is there, frozen or not."""
        return self.process is not None and self.process.process.poll() is None

    def log_bytes(self) -> int:
        """How long its log is now."""
        return self.log.stat().st_size if self.log.exists() else 0

    def logged(self, what: str, since_bytes: int = 0) -> int:
        """Returns how many lines of its log, from that position on, match the regular expression."""
        if not self.log.exists():
            return 0
        with self.log.open("rb") as log:
            log.seek(since_bytes)
            return sum(re.search(what.encode(), line) is not None for line in log)

    def is_ready(self) -> bool:
        """Whether it has joined and its table is restored."""
        return get(f"http://127.0.0.1:{self.port}/readyz")[0] == 200


class Fleet:
    """`bug` is planted into every worker; `in_flight` returns the calls in flight by caller."""

    def __init__(self, service: Service, in_flight: Callable[[], dict[str, int]], bug: str | None = None) -> None:
        self._service = service
        self._in_flight = in_flight
        self._bug = bug
        self.members = [Member(f"worker-{number}", service.folder) for number in range(WORKERS_MAX)]
        self.deaths: list[Death] = []
        self.freezes: list[Freeze] = []
        self.happened: Counter[str] = Counter()
        #: Things that a worker must not do.
        self.violations: list[tuple[str, str]] = []
        #: Calls in flight of each killed worker.
        self.in_flight_at_kills: list[int] = []

    @property
    def living(self) -> list[Member]:
        """Returns the members whose process runs."""
        return [member for member in self.members if member.is_alive and not member.is_frozen]

    def start(self, member: Member) -> None:
        """Starts a worker without waiting until it is ready: under faults that may never happen."""
        if member.is_alive:
            return
        member.port = self._service.free_port()
        member.is_wanted = True
        member.process = self._service.start_command(
            member.name,
            [sys.executable, "-m", *(["tests.chaos.buggy_worker", self._bug] if self._bug else ["streams", "worker"])],
            WORKER_METRICS_PORT=str(member.port),
            DATA_DIR=str(member.data_dir),
            XAI_API_KEY=member.api_key,
        )

    async def pick(self, source: random.Random) -> Member:
        """Picks a living worker, preferably a busy one: killing an idle one proves little."""
        self.fill_up(1)
        in_flight = await asyncio.to_thread(self._in_flight)
        busy = [member for member in self.living if in_flight.get(member.caller)]
        return source.choice(busy or self.living)

    async def kill(self, member: Member) -> None:
        """Sends SIGKILL; the worker stays dead until it is started again."""
        in_flight = await asyncio.to_thread(self._in_flight)
        member.is_wanted = False
        process = self._process_of(member)
        if member.is_alive:
            process.kill()
            self.in_flight_at_kills.append(in_flight.get(member.caller, 0))
            self.deaths.append(Death(member.caller, time.time(), "killed"))
            self.happened["workers_killed"] += 1

    @contextmanager
    def frozen(self, member: Member) -> Iterator[None]:
        """Sends SIGSTOP, and SIGCONT at the end: its late work must do no harm."""
        process = self._process_of(member).process
        member.is_frozen = True
        process.send_signal(signal.SIGSTOP)
        frozen_s = time.time()
        self.deaths.append(Death(member.caller, frozen_s, "frozen"))
        self.happened["workers_frozen"] += 1
        try:
            yield
        finally:
            self.freezes.append(Freeze(member.caller, frozen_s, time.time()))
            member.is_frozen = False
            process.send_signal(signal.SIGCONT)

    async def stop(self, member: Member) -> None:
        """Sends SIGTERM, and kills a worker that does not end."""
        process, member.is_wanted, stop_s, began_s = self._process_of(member), False, time.time(), time.monotonic()
        code = await asyncio.to_thread(process.stop)
        took_s = time.monotonic() - began_s
        self.deaths.append(Death(member.caller, stop_s, "stopped", took_s))
        self.happened["workers_stopped"] += 1
        # Other codes: the last resort, or a signal before the process handles signals.
        self.happened["stopped_in_order" if code == 0 else f"stopped_with_{code}"] += 1
        if took_s > _STOP_WITHIN_S:
            self.violations.append(("stops_too_slow", f"{member.name} after {took_s:.1f} s"))

    def given_up(self) -> None:
        """Frozen brokers resume after longer than the session, and replace every worker."""
        now_s = time.time()
        self.deaths += [Death(member.caller, now_s, "given_up") for member in self.members if member.is_alive]

    def lose_tables(self, member: Member) -> bool:
        """Removes the RocksDB folder of a dead worker. Returns whether there was one."""
        tables = member.data_dir / "tables"
        was_there = tables.exists()
        shutil.rmtree(tables, ignore_errors=True)
        return was_there

    def tear_table(self, member: Member, source: random.Random) -> bool:
        """Cuts one file of each of a dead worker's shards in half. Returns whether there was any."""
        files = sorted(file for pattern in _TORN for file in member.data_dir.rglob(pattern) if file.stat().st_size > 1)
        shards = sorted({file.parent for file in files})
        for shard in shards:
            file = source.choice([file for file in files if file.parent == shard])
            with file.open("r+b") as torn:
                torn.truncate(file.stat().st_size // 2)
        return bool(shards)

    async def supervise(self) -> NoReturn:
        """Restarts workers that ended by themselves, as any supervisor would; until cancelled."""
        while True:
            await asyncio.sleep(0.5)
            for member in self.members:
                if member.is_wanted and not member.is_alive:
                    code = self._process_of(member).process.returncode
                    self.violations.append(("ended_by_itself", f"{member.name} with {code}"))
                    self.start(member)

    def fill_up(self, at_least: int) -> None:
        """Starts absent ones until there are enough."""
        absent = [member for member in self.members if not member.is_alive]
        for member in absent[: max(0, at_least - len(self.living))]:
            self.start(member)

    async def ready(self, within_s: float) -> bool:
        """Whether every living worker got ready in time."""
        return await became_true(lambda: asyncio.to_thread(self._all_ready), within_s, 0.3)

    def _all_ready(self) -> bool:
        return all(member.is_ready() for member in self.living)

    def shards_rebuilt(self) -> int:
        """How often a worker noticed that a shard of its table was torn."""
        return sum(member.logged("_rebuilding_from_changelog") for member in self.members)

    def tell(self, verdict: Verdict) -> None:
        """Adds violations of workers, including defects that only their logs show."""
        for violation, example in self.violations:
            verdict.violation(violation, example)
        for member in self.members:
            for what in _DEFECTS:
                if count := member.logged(what):
                    verdict.violation("swallowed_defect", f"{what} {count} times in {member.log.name}")

    def _process_of(self, member: Member) -> Process:
        assert member.process is not None, f"{member.name} was never started"
        return member.process
