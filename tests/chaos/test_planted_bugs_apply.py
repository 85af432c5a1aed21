"""Every planted bug really changes what it claims to: the same small scene goes one way without it, another with it."""

import asyncio
import itertools
import random
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
import streams.pipeline.home
import streams.sinks.postgres
from agents.guards.single_flight import SingleFlight
from aiokafka import TopicPartition
from faust.types import TP
from streams.pipeline.assignment import Assignment
from streams.pipeline.delivery import Delivery
from streams.pipeline.envelope import open_envelope
from streams.pipeline.home import Rehoming
from streams.pipeline.lease import GroupLease
from streams.pipeline.offsets import Tracker
from streams.pipeline.pump import Pump
from streams.pipeline.record import read_record
from streams.pipeline.steps import Steps
from streams.pipeline.table_cache import ShardCache
from streams.sinks.postgres import PostgresSink
from streams.sinks.results import ResultsSink
from tests.fakes.faust_stream import FakeStream
from tests.unit.pipeline.factories import PARTITIONS, at_home

import agents.grok.client
from agents.analyse import Recipe
from agents.canonical_text import text_key
from agents.grok.client import GrokAnalyser
from agents.limits.breaker import CircuitBreaker
from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.errors import InsightsError, Retryable
from schemas.insight import Answer
from schemas.kafka import Origin
from schemas.outcome import Analysed
from streams.dev.local.ports import free_port
from streams.dev.standin.completions import Answerer
from streams.dev.standin.faults import FaultKind
from streams.kafka.offset_reader import OffsetReader, Position
from streams.sinks.dead_letters import DeadLetterSink
from streams.telemetry.observers import CallMetrics
from tests.chaos import planting
from tests.chaos.buggy_worker import PATCHES, main
from tests.chaos.planted_bugs import BUGS, HARMLESS, Finding
from tests.fakes.analysis import NOON, FakeAnalyser, MemoryCache, a_result, an_answer, at_once
from tests.fakes.sinks import FakeEvents, FakeLetters, FakeRows
from tests.support.topics import TOPICS

FIRST = TP("conversations", 0)
ADR = Path(__file__).parents[2] / "infra" / "adr"


class Wire:
    """A producer that remembers what it was given and, when silent, confirms nothing."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self.sent: list[str] = []
        self._is_silent = is_silent

    async def send(self, topic: str, **_: object) -> SimpleNamespace:
        self.sent.append(topic)
        if self._is_silent:
            await asyncio.Event().wait()
        return SimpleNamespace(offset=7)


class SilentRows(FakeRows):
    """A database that is frozen."""

    async def write(self, result: object) -> None:
        await asyncio.Event().wait()


async def returns_unconfirmed(work: Coroutine[Any, Any, object]) -> bool:
    """Whether the work ends although nobody ever confirms what it does."""
    task = asyncio.create_task(work)
    for _ in range(20):
        await asyncio.sleep(0)
    is_done = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return is_done


def delivery(rows: FakeRows, events: FakeEvents) -> Delivery:
    return Delivery(rows, events, FakeLetters(), "v1", lambda: NOON)


def recipe(analyser: FakeAnalyser) -> Recipe:
    return Recipe(analyser, timedelta(days=1), lambda: NOON)


async def due_of_one_in_work() -> int | None:
    tracker = Tracker(0)
    tracker.admit(0, 0.0)
    return tracker.due()


async def due_when_the_second_is_finished() -> int | None:
    tracker = Tracker(0)
    _, second = tracker.admit(0, 0.0), tracker.admit(1, 0.0)
    tracker.finish(second)
    return tracker.due()


async def due_when_all_but_the_first_are_finished() -> bool:
    random.seed(1)
    tracker = Tracker(0)
    _, *others = [tracker.admit(offset, 0.0) for offset in range(50)]
    for slot in others:
        tracker.finish(slot)
    while tracker.oldest_open_timestamp_s is None and tracker.due() is None:
        await asyncio.sleep(0.01)
    return tracker.due() is not None


async def verdicts() -> tuple[str, str]:
    tracker = Tracker(5)
    return tracker.judge(9).name, tracker.judge(3).name


async def offsets_that_reach_the_pump() -> list[int]:
    stream = FakeStream()
    stream.put(*range(4))
    stream.end()
    taken: list[int] = []
    await Pump.run(cast(Any, taken), cast(Any, stream))
    return taken


async def due_of_a_dead_generation() -> list[int]:
    assignment = Assignment()
    tracker = assignment.open((FIRST, 1), 0)
    slot = tracker.admit(0, 0.0)
    assignment.revoke()
    tracker.finish(slot)
    return [offset for _, offset in assignment.due(2).values()]


async def start_of_reading() -> int:
    class Log(OffsetReader):
        async def positions(self, partitions: object) -> dict[TopicPartition, Position]:
            return {TopicPartition(*FIRST): Position(3, 9)}

    return await Log({}, TOPICS).start_of_reading(TopicPartition(*FIRST))


async def handled_though_cancelled() -> bool:
    analyser = FakeAnalyser()
    analyser.gate.clear()
    sinks = delivery(FakeRows(), FakeEvents())
    rehoming = Rehoming(cast(Any, Wire()), TOPICS.rehomed, lambda: PARTITIONS)
    steps = Steps(recipe(analyser), sinks, rehoming, lambda _: MemoryCache(), cast(Any, None), cast(Any, None))
    task = asyncio.create_task(steps.handle(at_home(), lambda: True))
    while not analyser.asked:
        await asyncio.sleep(0)
    task.cancel()
    [ended] = await asyncio.gather(task, return_exceptions=True)
    return ended is True


async def delivered_without_a_row() -> bool:
    record = at_home()
    sinks = delivery(SilentRows(), FakeEvents())
    return await returns_unconfirmed(
        sinks.deliver(record, open_envelope(record), Analysed(an_answer()), lambda: True),
    )


async def event_is_not_awaited() -> bool:
    return await returns_unconfirmed(
        ResultsSink(cast(Any, Wire(is_silent=True)), TOPICS.insights).send(a_result(), None)
    )


async def row_is_not_awaited() -> bool:
    return await returns_unconfirmed(PostgresSink("postgresql://").write(a_result()))


async def statement_is_idempotent() -> bool:
    return "ON CONFLICT" in streams.sinks.postgres._UPSERT


async def events_of_a_record_with_a_row() -> int:
    class StoredRows(FakeRows):
        _pool = SimpleNamespace(fetchval=lambda *_: asyncio.sleep(0, True))

    record, events = at_home(), FakeEvents()
    sinks = delivery(StoredRows(), events)
    await sinks.deliver(record, open_envelope(record), Analysed(an_answer()), lambda: True)
    return len(events.sent)


async def copy_is_not_awaited() -> bool:
    rehoming = Rehoming(cast(Any, Wire(is_silent=True)), TOPICS.rehomed, lambda: PARTITIONS)
    return await returns_unconfirmed(rehoming.send_home(at_home(), "key"))


async def letters_of_a_record_without_an_id() -> int:
    wire = Wire()
    letter = DeadLetter(None, b"{", [], DeadLetterReason.UNDECODABLE, "", Origin("conversations", 0, 1), NOON, NOON)
    await DeadLetterSink(cast(Any, wire), TOPICS.dead_letters).send(letter, None)
    return len(wire.sent)


async def error_of_a_dead_provider() -> str:
    analyser = GrokAnalyser(
        base_url=f"http://127.0.0.1:{free_port()}",
        api_key="key",
        model="m",
        timeout_s=2,
        breaker=CircuitBreaker(5, 1),
        observer=CallMetrics(),
        may_pay=at_once,
        max_connections=1,
    )
    await analyser.start()
    try:
        return await name_of_error(analyser.analyse("text"))
    finally:
        await analyser.stop()


async def name_of_error(work: Awaitable[object]) -> str:
    try:
        await work
    except InsightsError as error:
        return type(error).__name__
    return "none"


async def bad_answer_is_read() -> str:
    async def read() -> object:
        return agents.grok.client.read_reply(Answerer().completion("", "text", "m", FaultKind.BAD_SCHEMA).body)  # type: ignore[attr-defined]

    return await name_of_error(read())


async def answer_is_told_before_it_is_kept() -> bool:
    class KeepsNothing(MemoryCache):
        async def put(self, key: str, answer: Answer) -> None:
            await asyncio.Event().wait()

    return await returns_unconfirmed(recipe(FakeAnalyser()).analyse("text", "key", KeepsNothing()))


async def kept_of_a_failed_call() -> int:
    cache = MemoryCache()
    await name_of_error(recipe(FakeAnalyser([Retryable("down")])).analyse("text", "key", cache))
    return len(cache.answers)


async def calls_of_alike_keys() -> int:
    analyser, cache = FakeAnalyser(), MemoryCache()
    for key in ("abcd" * 16, "abce" * 16):
        await recipe(analyser).analyse(f"text of {key}", key, cache)
    return len(analyser.asked)


async def calls_of_equal_texts_at_once() -> int:
    analyser, cache = FakeAnalyser(), MemoryCache()
    shared = recipe(analyser)
    analyser.gate.clear()
    both = [asyncio.create_task(shared.analyse("text", "key", cache)) for _ in range(2)]
    while not analyser.asked:
        await asyncio.sleep(0)
    analyser.gate.set()
    await asyncio.gather(*both)
    return len(analyser.asked)


async def what_followers_of_a_failed_call_get() -> list[str]:
    flights, begun = SingleFlight[str, str](), asyncio.Event()

    async def fail() -> str:
        await begun.wait()
        raise Retryable("down")

    tasks = [asyncio.create_task(flights.run("key", fail)) for _ in range(2)]
    await asyncio.sleep(0)
    begun.set()
    return [type(ended).__name__ for ended in await asyncio.gather(*tasks, return_exceptions=True)]


async def may_pay_without_a_heartbeat() -> bool:
    return await returns_unconfirmed(GroupLease(10).held())


async def changelog_records_of_an_answer() -> int:
    wire, store = Wire(), SimpleNamespace(write=lambda *_: None)
    await ShardCache(cast(Any, store), cast(Any, wire), TOPICS.answers_changelog, 0).put("key", an_answer())
    return len(wire.sent)


async def texts_away_from_home() -> bool:
    texts = [f"where is parcel {number}" for number in range(50)]
    rehoming = Rehoming(cast(Any, Wire()), TOPICS.rehomed, lambda: PARTITIONS)
    return any(rehoming.is_away(at_home(text), text_key("default", text)) for text in texts)


async def origin_of_a_copy() -> str:
    headers = [("rehomed.topic", b"conversations"), ("rehomed.partition", b"1"), ("rehomed.offset", b"2")]
    place = Origin(TOPICS.rehomed, 0, 0)
    record = read_record(place, key=b"k", value=b"v", headers=headers, timestamp_s=0.0, is_rehomed=True)
    return record.origin.topic


#: Bug -> a scene, how it ends in a worker without the bug, and how in one with it.
SCENES: Mapping[str, tuple[Callable[[], Awaitable[object]], object, object]] = {
    "commit_on_read": (due_of_one_in_work, None, 1),
    "commit_highest": (due_when_the_second_is_finished, None, 2),
    "slot_opened_late": (due_when_all_but_the_first_are_finished, False, True),
    "next_not_checked": (verdicts, ("JUMP", "REPEAT"), ("NEXT", "NEXT")),
    "gap_believed": (verdicts, ("JUMP", "REPEAT"), ("NEXT", "REPEAT")),
    "dead_generation_commits": (due_of_a_dead_generation, [], [1]),
    "reads_from_the_end": (start_of_reading, 3, 9),
    "cancelled_is_finished": (handled_though_cancelled, False, True),
    "commit_before_sink": (delivered_without_a_row, False, True),
    "event_not_awaited": (event_is_not_awaited, False, True),
    "row_not_awaited": (row_is_not_awaited, False, True),
    "plain_insert": (statement_is_idempotent, True, False),
    "table_without_key": (statement_is_idempotent, True, False),
    "origin_of_the_copy": (origin_of_a_copy, "conversations", "conversations.rehomed"),
    "row_means_done": (events_of_a_record_with_a_row, 1, 0),
    "rehomed_not_awaited": (copy_is_not_awaited, False, True),
    "letter_dropped_on_error": (letters_of_a_record_without_an_id, 1, 0),
    "errors_set_aside": (error_of_a_dead_provider, "Retryable", "Unprocessable"),
    "answer_kept_unchecked": (bad_answer_is_read, "BadAnswer", "none"),
    "answer_kept_in_background": (answer_is_told_before_it_is_kept, False, True),
    "cache_entry_reserved": (kept_of_a_failed_call, 0, 1),
    "cache_key_cut": (calls_of_alike_keys, 2, 1),
    "no_single_flight": (calls_of_equal_texts_at_once, 1, 2),
    "flight_drops_error": (what_followers_of_a_failed_call_get, ["Retryable", "Retryable"], ["Retryable", "tuple"]),
    "lease_not_asked": (may_pay_without_a_heartbeat, False, True),
    "changelog_not_written": (changelog_records_of_an_answer, 1, 0),
    "home_by_salted_hash": (texts_away_from_home, False, True),
}


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Plants a bug by name, through the real `replace`, and pulls it out again after the test."""
    modules = [value for name, value in sys.modules.items() if name.startswith("tests.chaos.planted_in_")]

    def replace(owner: Any, name: str, replacement: Any) -> None:
        monkeypatch.setattr(owner, name, vars(owner).get(name), raising=False)
        planting.replace(owner, name, replacement)

    for module in modules:
        monkeypatch.setattr(module, "replace", replace)
    return lambda name: PATCHES[name]()


@pytest.mark.parametrize("name", BUGS)
async def test_a_bug_changes_what_it_claims_to(name: str, plant: Callable[[str], None]) -> None:
    """Right without it and wrong with it: a patch without effect would make a blind judge look good."""
    scene, right, wrong = SCENES[name]
    assert await scene() == right
    plant(name)
    assert await scene() == wrong


async def test_lost_records_are_a_harmless_patch(plant: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the bugs about gaps: the same records get lost, and the worker has no mistake in it."""

    async def run(taken: list[int], stream: FakeStream) -> None:
        taken.extend([event.message.offset async for event in stream.noack().events()])

    draws = itertools.cycle([1.0, 0.0])
    monkeypatch.setattr(random, "random", lambda: next(draws))
    monkeypatch.setattr(Pump, "run", run)
    assert await offsets_that_reach_the_pump() == [0, 1, 2, 3]
    plant("faust_loses_records")
    assert await offsets_that_reach_the_pump() == [0, 2]


def test_every_bug_has_a_name_of_its_own_and_a_scene() -> None:
    """The names are the launcher's arguments; none hides another."""
    assert len({bug.story for bug in BUGS.values()}) == len({bug.patch for bug in BUGS.values()}) == len(BUGS)
    assert BUGS.keys() == SCENES.keys()
    assert not BUGS.keys() & HARMLESS.keys()
    assert {bug.shows_as for bug in BUGS.values()} <= set(get_args(Finding))


def test_the_table_of_the_record_has_every_bug_and_none_of_them_undetected() -> None:
    """infra/adr/0006: a bug that is planted and not in it has never been seen to turn the judge red."""
    [record] = ADR.glob("0006-*.md")
    rows = [line.strip("| \n").split(" | ") for line in record.read_text().splitlines() if line.startswith("| ")]
    table = {name: (story, findings) for name, story, rounds, findings in rows if rounds.isdigit()}
    assert table.keys() == {"none", *HARMLESS, *BUGS}
    for bug in BUGS.values():
        story, findings = table[bug.name]
        assert story == bug.story.splitlines()[0]
        assert bug.shows_as in findings


def test_a_patch_whose_target_is_gone_is_loud() -> None:
    """Renamed, called otherwise, or unchanged: none of them passes for a planted bug."""
    with pytest.raises(LookupError):
        planting.replace(Tracker, "no_such_method", lambda: None)
    with pytest.raises(TypeError):
        planting.replace(Tracker, "finish", lambda tracker: None)
    with pytest.raises(ValueError, match="changes nothing"):
        planting.replace(Tracker, "finish", Tracker.finish)


@pytest.mark.parametrize("arguments", [[], ["no_such_bug"], ["commit_on_read", "no_single_flight"]])
def test_the_launcher_refuses_what_is_not_one_bug(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the list, so that a misspelt bug is not taken for a worker without one."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    listed = capsys.readouterr().err
    assert all(name in listed for name in PATCHES)
