"""Every planted bug changes what it claims to: the same small scene ends one way without it, another way with it."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from aiokafka import TopicPartition

import agents.analyst
import agents.grok.client
import streams.kafka.offset_reader
import streams.sinks.rows
from agents.analyse import Analysis, Flight
from agents.analyst import Analyst, AnalystOptions, Sinks
from agents.decode import REHOMED_OFFSET, REHOMED_PARTITION, REHOMED_TOPIC, Job
from agents.grok.client import GrokAnalyser
from agents.limits.breaker import CircuitBreaker
from agents.text_key import owner_partition
from schemas.errors import InsightsError, Retryable
from schemas.outcome import Analysed
from streams.dev.local.ports import free_port
from streams.dev.standin.completions import Answerer
from streams.dev.standin.faults import FaultKind
from streams.engine.answers_table import TableAnswers
from streams.engine.membership import GroupLease
from streams.kafka.producer import Outgoing
from streams.sinks.dead_letters import DeadLetterSink
from streams.sinks.events import EventSink
from streams.sinks.rehomed import RehomedSink
from streams.sinks.rows import RowSink
from streams.telemetry.metrics import CallMetrics
from streams.worker.fencing import Fence
from streams.worker.intake import Assignment, Fetch, Intake
from streams.worker.offsets import Tracker
from tests.chaos import planting
from tests.chaos.buggy_worker import main
from tests.chaos.planted_bugs import BUGS, Finding
from tests.chaos.record import RECORD
from tests.fakes.analysis import FakeAnalyser, MemoryAnswers, at_once
from tests.fakes.sinks import FakeRows, FakeSender
from tests.support.factories import NOON, a_dead_job, a_job, a_record, a_result, a_tracker, an_answer
from tests.support.topics import TOPICS

TP = TopicPartition(TOPICS.conversations, 0)


class Wire:
    """A producer that remembers what it was given and, when silent, confirms nothing."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self.sent: list[Outgoing] = []
        self._is_silent = is_silent

    async def send_all(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        self.sent += records
        if self._is_silent:
            await asyncio.Event().wait()
        return [7] * len(records)


SILENT: Any = Wire(is_silent=True)


def tracker_of(*offsets: int) -> Tracker:
    tracker = a_tracker()
    tracker.admit(offsets)
    return tracker


def analysed() -> Job:
    job = a_job(a_record(offset=0), result=a_result())
    job.outcome = Analysed(an_answer())
    return job


def an_analysis(analyser: FakeAnalyser, answers: MemoryAnswers | None = None) -> Analysis:
    options: dict[str, Any] = {"cache_ttl": timedelta(days=1), "max_calls": 5, "linger_s": 0.0, "now": lambda: NOON}
    options["hold_back"] = print
    return Analysis(analyser, answers or MemoryAnswers(), lambda _: None, print, print, **options)


def an_analyst(rows: FakeRows) -> Analyst:
    counters: Any = SimpleNamespace(ended=lambda _: None, delivered=lambda _: None)
    options = AnalystOptions(max_calls=1, max_open_records=10, cache_ttl=timedelta(days=1))
    sinks = Sinks(rows, FakeSender(), FakeSender(), FakeSender())
    return Analyst(FakeAnalyser(), MemoryAnswers(), sinks, counters, counters, print, lambda: NOON, options)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def returns_unconfirmed(work: Coroutine[Any, Any, object]) -> bool:
    """Whether the work ends although nothing ever confirms what it does."""
    task = asyncio.create_task(work)
    await turns()
    is_done = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return is_done


def due_when_the_second_is_finished() -> int | None:
    tracker = tracker_of(0, 1)
    tracker.finish(1)
    return tracker.due()


async def is_due_when_all_but_the_first_are_finished() -> bool:
    """Of several trackers in turn: the first slot may be opened first by chance."""
    for _ in range(10):
        tracker = tracker_of(*range(50))
        while len(tracker._open) < 50:
            await asyncio.sleep(0.01)
        for offset in range(1, 50):
            tracker.finish(offset)
        if tracker.due() is not None:
            return True
    return False


class Reader:
    """An intake with an analyst that opens what it is given; `committed` is what the broker was asked to take."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        analyst = SimpleNamespace(take=lambda tracker, records, rehomed: tracker.admit([r.offset for r in records]))
        nothing: Any = None
        life = SimpleNamespace(halted=None)
        self.intake = Intake(nothing, cast(Any, analyst), nothing, {}, TOPICS, self._take, cast(Any, life))

    def begin(self, generation: int) -> Assignment:
        self.intake.current = assignment = Assignment([TP], generation)
        assignment.trackers = {TP: Tracker(TP, 0)}
        return assignment

    def end(self) -> None:
        ended = self.intake.end()
        assert ended is not None
        ended.revoke()

    async def _take(self, generation: int, offsets: Mapping[TopicPartition, int]) -> bool:
        self.committed += offsets.values()
        return True


async def committed_of_a_revoked_assignment() -> list[int]:
    reader = Reader()
    tracker = reader.begin(1).trackers[TP]
    tracker.admit([0])
    await reader.intake.commit(cast(Assignment, reader.intake.current))
    reader.end()
    tracker.finish(0)
    await reader.intake.commit(reader.begin(2))
    return reader.committed


def next_after_a_fetch_of_the_assignment_before() -> int:
    reader = Reader()
    ended = reader.begin(1)
    reader.end()
    current = reader.begin(2)
    reader.intake.process(Fetch(ended, {TP: [a_record(offset=5)]}))
    return current.trackers[TP].next


def next_after_the_first_fetch() -> int:
    reader = Reader()
    assignment = reader.begin(1)
    reader.intake.process(Fetch(assignment, {TP: [a_record(offset=0)]}))
    return assignment.trackers[TP].next


async def due_when_the_call_is_cancelled() -> int | None:
    analyser, job = FakeAnalyser(), analysed()
    analyser.gate.clear()
    analysis = an_analysis(analyser)
    analysis.ask(analysis.share([job]))
    await turns()
    await analysis.drain(0)
    return cast(Tracker, job.tracker).due()


async def due_before_any_sink_has_it() -> int | None:
    job = analysed()
    tracker = cast(Tracker, job.tracker)
    an_analyst(FakeRows())._deliver([job])
    return tracker.due()


def origin_of_a_copy() -> str:
    headers = [(REHOMED_TOPIC, b"conversations"), (REHOMED_PARTITION, b"1"), (REHOMED_OFFSET, b"2")]
    return a_job(a_record(topic=TOPICS.rehomed, headers=headers)).origin.topic


async def event_of_a_record_with_a_row() -> bool:
    rows: Any = FakeRows()
    rows._pool = SimpleNamespace(fetch=lambda _, ids: asyncio.sleep(0, [{"conversation_id": id_} for id_ in ids]))
    analyst = an_analyst(rows)
    await analyst._store([analysed()])
    return analyst._events.is_busy


async def dead_letters_of_a_record_without_an_id() -> int:
    wire = Wire()
    await DeadLetterSink(cast(Any, wire), TOPICS.dead_letters, lambda: NOON).send([a_dead_job(a_record(b"{"))])
    return len(wire.sent)


async def error_of_an_unreachable_provider() -> str:
    analyser = GrokAnalyser(
        base_url=f"http://127.0.0.1:{free_port()}",
        api_key="key",
        model="m",
        timeout_s=2,
        breaker=CircuitBreaker(5, 1),
        observer=CallMetrics(),
        wait_allowed=at_once,
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


async def is_delivered_before_it_is_kept() -> bool:
    flight, answers = Flight(b"key", analysed()), MemoryAnswers()
    flight.answer = an_answer()
    answers.gate.clear()
    return await returns_unconfirmed(an_analysis(FakeAnalyser(), answers)._keep([flight]))


async def kept_while_the_call_is_in_flight() -> int:
    analyser, answers = FakeAnalyser(), MemoryAnswers()
    analyser.gate.clear()
    analysis = an_analysis(analyser, answers)
    analysis.ask(analysis.share([analysed()]))
    await turns()
    return len(answers.puts)


def keys_of_alike_texts() -> int:
    jobs = [analysed(), analysed()]
    jobs[0].text_key, jobs[1].text_key = "abcd" * 16, "abce" * 16
    return len({an_analysis(FakeAnalyser())._key(job) for job in jobs})


async def jobs_that_wait_on_when_a_call_fails() -> int:
    analysis = an_analysis(FakeAnalyser([Retryable("down")]))
    [flight] = analysis.share([analysed(), analysed()])
    with suppress(Retryable):
        await analysis._call(flight, cast("asyncio.Task[None]", asyncio.current_task()))
    return len(flight.jobs)


async def changelog_records_of_an_answer() -> int:
    wire, table = Wire(), SimpleNamespace(store=SimpleNamespace(write=lambda *_: None))
    await TableAnswers(cast(Any, table), cast(Any, wire), TOPICS.answers_changelog).put([Flight(b"key", analysed())])
    return len(wire.sent)


def owner_is_that_of_kafka() -> bool:
    keys = [b"key %d" % number for number in range(50)]
    return all(agents.analyst.owner_partition(key, 8) == owner_partition(key, 8) for key in keys)  # type: ignore[attr-defined]


#: Bug -> a scene, how it ends in a worker without the bug, and how in one with it.
SCENES: Mapping[str, tuple[Callable[[], object], object, object]] = {
    "commit_on_read": (lambda: tracker_of(0).due(), None, 1),
    "commit_highest": (due_when_the_second_is_finished, None, 2),
    "slot_opened_late": (is_due_when_all_but_the_first_are_finished, False, True),
    "dead_generation_commits": (committed_of_a_revoked_assignment, [], [1]),
    "reads_from_the_end": (lambda: streams.kafka.offset_reader._position(TP, 3, 0, 9).start, 3, 9),
    "ended_reader_feeds_the_next": (next_after_a_fetch_of_the_assignment_before, 0, 6),
    "first_fetch_skipped": (next_after_the_first_fetch, 1, 0),
    "cancelled_is_finished": (due_when_the_call_is_cancelled, None, 1),
    "commit_before_sink": (due_before_any_sink_has_it, None, 1),
    "event_not_awaited": (
        lambda: returns_unconfirmed(EventSink(SILENT, TOPICS.insights).send([analysed()])),
        False,
        True,
    ),
    "row_not_awaited": (
        lambda: returns_unconfirmed(RowSink("postgresql://user@host").write([analysed()])),
        False,
        True,
    ),
    "plain_insert": (lambda: "DO UPDATE" in streams.sinks.rows._UPSERT, True, False),
    "table_without_key": (lambda: "DO UPDATE" in streams.sinks.rows._UPSERT, True, False),
    "origin_of_the_copy": (origin_of_a_copy, "conversations", "conversations.rehomed"),
    "row_means_done": (event_of_a_record_with_a_row, True, False),
    "rehomed_not_awaited": (
        lambda: returns_unconfirmed(RehomedSink(SILENT, TOPICS.rehomed).send([analysed()])),
        False,
        True,
    ),
    "dead_letter_dropped_on_error": (dead_letters_of_a_record_without_an_id, 1, 0),
    "errors_set_aside": (error_of_an_unreachable_provider, "Retryable", "Unprocessable"),
    "answer_kept_unchecked": (bad_answer_is_read, "BadAnswer", "none"),
    "answer_kept_in_background": (is_delivered_before_it_is_kept, False, True),
    "cache_entry_reserved": (kept_while_the_call_is_in_flight, 0, 1),
    "cache_key_cut": (keys_of_alike_texts, 2, 1),
    "no_single_flight": (lambda: len(an_analysis(FakeAnalyser()).share([analysed(), analysed()])), 1, 2),
    "flight_drops_error": (jobs_that_wait_on_when_a_call_fails, 2, 1),
    "lease_not_asked": (lambda: returns_unconfirmed(Fence(GroupLease(10)).wait_open()), False, True),
    "changelog_not_written": (changelog_records_of_an_answer, 1, 0),
    "owner_by_salted_hash": (owner_is_that_of_kafka, True, False),
}


async def end_of(scene: Callable[[], object]) -> object:
    ended = scene()
    return await ended if isinstance(ended, Awaitable) else ended


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Plants a bug by name, through the real `replace`, and removes it after the test."""

    def replace(owner: Any, name: str, replacement: Any) -> None:
        monkeypatch.setattr(owner, name, vars(owner).get(name), raising=False)
        planting.replace(owner, name, replacement)

    for module in [value for name, value in sys.modules.items() if name.startswith("tests.chaos.planted_in_")]:
        monkeypatch.setattr(module, "replace", replace)
    return lambda name: BUGS[name].patch()


@pytest.mark.parametrize("name", BUGS)
async def test_a_bug_changes_what_it_claims_to(name: str, plant: Callable[[str], None]) -> None:
    """A patch without effect would make a blind judge look good."""
    scene, right, wrong = SCENES[name]
    assert await end_of(scene) == right
    plant(name)
    assert await end_of(scene) == wrong


def test_every_bug_has_a_name_of_its_own_and_a_scene() -> None:
    assert len({bug.story for bug in BUGS.values()}) == len({bug.patch for bug in BUGS.values()}) == len(BUGS)
    assert BUGS.keys() == SCENES.keys()


def test_every_bug_was_found_as_what_it_is() -> None:
    """By the judge, and a worker without a bug stayed green; `make chaos ARGS=--prove` writes the record."""
    proof = json.loads(RECORD.read_text())["proof"]
    assert proof.keys() == {"none", *BUGS}
    assert {name for name, of_bug in proof.items() if not of_bug["is_right"]} == set()
    assert {name: of_bug["story"] for name, of_bug in proof.items() if name in BUGS} == {
        name: bug.story.splitlines()[0] for name, bug in BUGS.items()
    }
    assert {bug.shows_as for bug in BUGS.values()} <= set(get_args(Finding))


def test_a_patch_whose_target_is_gone_fails() -> None:
    """Renamed, called otherwise, or unchanged: none of them counts as a planted bug."""
    with pytest.raises(LookupError):
        planting.replace(Tracker, "no_such_method", lambda: None)
    with pytest.raises(TypeError):
        planting.replace(Tracker, "finish", lambda tracker: None)
    with pytest.raises(ValueError, match="changes nothing"):
        planting.replace(Tracker, "finish", Tracker.finish)


@pytest.mark.parametrize("arguments", [[], ["no_such_bug"], ["commit_on_read", "no_single_flight"]])
def test_the_launcher_refuses_what_is_not_one_bug(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt bug must not run a worker without one."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    listed = capsys.readouterr().err
    assert all(name in listed for name in BUGS)
