"""The analyst's count of open records and bytes is exact in any order of events, or intake would stop permanently."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

import agents.analyst
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Retryable, Unprocessable
from tests.support.factories import NOON, an_answer
from tests.support.mutants import Mutant, load

MODULE = "agents.analyst"
PARTITIONS = 2
MAX_OPEN = 40
VALUES = (b"{", *(json.dumps({"id": "c", "text": text}).encode() for text in ("Hello!", "late parcel", "login broken")))
#: After that many turns of the event loop everything that is not held back has happened.
TURNS = 40
ACTIONS = {"take": 5, "let_go": 12, "revoke": 1}
MUST_HAPPEN = {"taken", "revoked", "revoked with open records", "let go late", "rows", "events", "rehomed", "answers"}


class Loop(asyncio.SelectorEventLoop):
    """Back-offs take no time."""

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(callback, *args, context=context)


class Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    value: bytes
    key: bytes = b"key"
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


class OpenOffsets:
    """A tracker that knows the size of every open record."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.is_revoked = False
        self.next = 0
        self.sizes: dict[int, int] = {}

    def admit(self, offsets: Sequence[int]) -> None:
        assert not self.is_revoked

    def finish(self, offset: int) -> None:
        if not self.is_revoked:
            del self.sizes[offset]


class AnalystModel:
    """Each call of a sink, of the table or of the analyser waits until the model lets it go, in any order."""

    def __init__(self, module: ModuleType, source: random.Random, happened: Counter[str]) -> None:
        self.source = source
        self.happened = happened
        self.loop = Loop()
        self.waiting: list[tuple[str, asyncio.Future[random.Random]]] = []
        self.failures: list[BaseException] = []
        senders = {name: SimpleNamespace(send=self.sender(name)) for name in ("events", "rehomed", "dead_letters")}
        sinks = module.Sinks(rows=SimpleNamespace(write=self.write, write_calls=self.write_calls), **senders)
        self.analyst = module.Analyst(
            SimpleNamespace(version="v1", is_paid=True, analyse=self.analyse),
            SimpleNamespace(get=lambda *_: None, put=self.put),
            sinks,
            SimpleNamespace(admits=lambda *_: True, delivered=lambda _: None),
            SimpleNamespace(ended=lambda _: None, rehomed=lambda _: None),
            self.failures.append,
            lambda: NOON,
            module.AnalystOptions(max_calls=2, max_open_records=MAX_OPEN, cache_ttl=timedelta(days=1)),
        )
        self.written = module.RowResults
        self.analyst.partitions = PARTITIONS
        self.run(self.analyst.start())
        self.assign()

    def assign(self) -> None:
        self.trackers = [OpenOffsets(partition) for partition in range(PARTITIONS)]

    def act(self, action: str, which: int) -> None:
        getattr(self, action)(which)
        self.turn()
        self.check()

    def take(self, which: int) -> None:
        if self.analyst.open_records >= MAX_OPEN:
            self.let_go(which)
            return
        tracker, source = self.trackers[which % PARTITIONS], self.source
        values = source.choices(VALUES, k=1 + which % 5)
        records = [Record("t", tracker.partition, tracker.next + n, value) for n, value in enumerate(values)]
        tracker.next += len(records)
        tracker.sizes |= {record.offset: len(record.value) + len(record.key) for record in records}
        self.run_now(lambda: self.analyst.take(tracker, records, rehomed=which % 3 == 0))
        self.happened["taken"] += 1

    def let_go(self, which: int) -> None:
        """Lets one of the waiting calls continue to one of its possible results."""
        if self.waiting:
            name, call = self.waiting.pop(which % len(self.waiting))
            self.happened[name] += 1
            if not call.done():
                call.set_result(self.source)

    def revoke(self, which: int) -> None:
        """As Rebalance does: the drain, then the trackers are revoked; calls that wait come back later."""
        self.run(self.analyst.drain(0.0, 0.0))
        for tracker in self.trackers:
            tracker.is_revoked = True
        self.analyst.forget()
        self.happened["revoked"] += 1
        self.happened["revoked with open records"] += any(tracker.sizes for tracker in self.trackers)
        self.happened["let go late"] += len(self.waiting)
        self.assign()

    # --- what the analyst talks to

    async def held(self, name: str) -> random.Random:
        call: asyncio.Future[random.Random] = self.loop.create_future()
        self.waiting.append((name, call))
        return await call

    async def analyse(self, _text: str, report: Any = None) -> Any:
        draw = (await self.held("calls")).random()
        if draw < 0.3:
            raise Unprocessable(DeadLetterReason.REFUSED, "") if draw < 0.15 else Retryable("busy")
        return an_answer()

    async def put(self, flights: Sequence[Any]) -> list[Any]:
        source = await self.held("answers")
        return [flight for flight in flights if source.random() < 0.2]

    async def write(self, jobs: Sequence[Any]) -> Any:
        source, written = await self.held("rows"), self.written([], [], [])
        for job in jobs:
            draw = source.random()
            if draw < 0.1:
                written.refused.append((job, Unprocessable(DeadLetterReason.UNSTORABLE, "")))
            else:
                (written.blocked if draw < 0.2 else written.stored).append(job)
        return written

    async def write_calls(self, calls: Sequence[Any]) -> None:
        await self.held("rows of calls")

    def sender(self, name: str) -> Callable[[Sequence[Any]], Any]:
        async def send(jobs: Sequence[Any]) -> list[Exception | None]:
            source = await self.held(name)
            return [Retryable("busy") if source.random() < 0.2 else None for _ in jobs]

        return send

    # --- always

    def check(self) -> None:
        sizes = [size for tracker in self.trackers for size in tracker.sizes.values()]
        assert (self.analyst.open_records, self.analyst._open_bytes) == (len(sizes), sum(sizes))
        assert not self.failures, self.failures

    def turn(self) -> None:
        for _ in range(TURNS):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def run(self, work: Any) -> None:
        self.loop.run_until_complete(work)

    def run_now(self, work: Callable[[], None]) -> None:
        async def call() -> None:
            work()

        self.run(call())

    def finish_all(self) -> None:
        """Lets all waiting calls continue, after which nothing is open."""
        while self.waiting:
            self.act("let_go", self.source.randrange(1_000))
        assert (self.analyst.open_records, self.analyst._open_bytes) == (0, 0)
        self.run(self.analyst.room())

    def close(self) -> None:
        self.run(self.analyst.drain(0.0, 0.0))
        self.run(self.analyst.stop())
        self.loop.close()


def run_model(module: ModuleType, runs: int, steps: int) -> Counter[str]:
    """Returns what happened; a run is repeated by its number."""
    happened: Counter[str] = Counter()
    for number in range(runs):
        source = random.Random(number)
        with closing(AnalystModel(module, source, happened)) as model:
            for action in source.choices([*ACTIONS], [*ACTIONS.values()], k=steps):
                model.act(action, source.randrange(1_000))
            model.finish_all()
    return happened


def test_open_records_are_counted_exactly() -> None:
    """Takes, finishes in any order, revocations, and finishes of revoked records that come later."""
    happened = run_model(agents.analyst, runs=100, steps=60)
    assert all(happened[what] for what in MUST_HAPPEN), happened


def test_few_records_that_hang_leave_room_for_others() -> None:
    """Also where fewer records may be open than make a full fetch."""
    with closing(AnalystModel(agents.analyst, random.Random(1), Counter())) as model:
        model.run_now(lambda: model.analyst.take(model.trackers[0], [Record("t", 0, 0, VALUES[-1])], rehomed=True))
        model.turn()
        assert model.waiting
        model.run(asyncio.wait_for(model.analyst.room(), 5))


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant("bytes are not given back", MODULE, "                self._open_bytes -= job.size_bytes\n", ""),
        Mutant(
            "late finishes count",
            MODULE,
            "            if job.is_wanted:\n                job.is",
            "            if 1:\n                job.is",
        ),
        Mutant(
            "revoked records stay open",
            MODULE,
            "        self._open_records = self._open_bytes = 0\n        self._has_room",
            "        self._has_room",
        ),
        Mutant(
            "rehomed records stay open", MODULE, "            self._finish(sent)\n            for", "            for"
        ),
        Mutant("a batch is one record", MODULE, "self._open_records += len(jobs)", "self._open_records += 1"),
        Mutant("blocked rows are dropped", MODULE, "        self._blocked_rows.put(written.blocked)\n", ""),
    ],
    ids=lambda mutant: mutant.what,
)
def test_every_mutant_is_killed(mutant: Mutant) -> None:
    """A model that passes despite a planted defect would prove nothing."""
    module = load(MODULE, mutant)
    with pytest.raises(AssertionError):
        run_model(module, runs=30, steps=60)
