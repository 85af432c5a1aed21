"""One record through all steps: it ends as exactly one outcome, whatever fails on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from streams.pipeline import attempts
from streams.pipeline.delivery import Delivery
from streams.pipeline.home import Rehoming
from streams.pipeline.record import Record
from streams.pipeline.steps import Steps

from agents.analyse import Recipe
from agents.limits.retry import Backoff
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, Retryable, Unprocessable
from schemas.outcome import Outcome, outcome_name
from tests.fakes.analysis import NOON, FakeAnalyser, MemoryCache
from tests.fakes.sinks import FakeEvents, FakeLetters, FakeRows
from tests.support.topics import TOPICS
from tests.unit.pipeline.factories import PARTITIONS, a_record, at_home, home_of, value_of


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The back-off has tests of its own; here it only costs time."""
    monkeypatch.setattr(attempts, "BACKOFF", Backoff(base_s=1e-6, cap_s=1e-6))


@dataclass
class RecordingProducer:
    """Remembers which partition of which topic each value was sent to."""

    sent: list[tuple[str, int | None, bytes | None]] = field(default_factory=list)

    async def send(self, topic: str, *, value: bytes | None, partition: int | None, **_: object) -> None:
        self.sent.append((topic, partition, value))


class Bench:
    """The steps on fakes."""

    def __init__(self, analyser_fails: Sequence[Exception] = (), rows_fail: Sequence[Exception] = ()) -> None:
        self.analyser = FakeAnalyser(analyser_fails)
        self.rows, self.events, self.letters = FakeRows(rows_fail), FakeEvents(), FakeLetters()
        self.producer = RecordingProducer()
        self.ends: list[str] = []
        self.stops: list[Fatal] = []
        self.cache = MemoryCache()
        self.steps = Steps(
            Recipe(self.analyser, timedelta(days=1), lambda: NOON),
            Delivery(self.rows, self.events, self.letters, "v1", lambda: NOON),
            Rehoming(self.producer, TOPICS.rehomed, lambda: PARTITIONS),  # type: ignore[arg-type]
            lambda _: self.cache,
            self,
            self.stops.append,
        )

    def ended(self, outcome: Outcome) -> None:
        self.ends.append(outcome_name(outcome))

    def rehomed(self) -> None:
        self.ends.append("rehomed")

    async def take(self, record: Record) -> bool:
        return await self.steps.handle(record, lambda: True)


async def test_a_conversation_becomes_a_row_and_an_event() -> None:
    """Both tell the same."""
    bench = Bench()
    assert await bench.take(at_home())
    [row], [event] = bench.rows.rows.values(), bench.events.sent
    assert row == event
    assert (row.outcome, row.cost_usd_ticks, bench.ends) == ("analysed", 5_000, ["analysed"])


async def test_an_equal_text_costs_nothing() -> None:
    """It is served from the cache, and its row says so with a cost of 0."""
    bench = Bench()
    await bench.take(at_home(id="a"))
    await bench.take(at_home(id="b"))
    row = bench.rows.rows["default", "b"]
    assert (row.outcome, row.cost_usd_ticks, row.insight is not None) == ("cached", 0, True)
    assert len(bench.analyser.asked) == 1


async def test_low_value_ends_where_it_is() -> None:
    """No call, no detour; a row all the same, so that the rows account for everything."""
    bench = Bench()
    assert await bench.take(a_record(value_of("hello"), partition=(home_of("where is my parcel") + 1) % 8))
    assert (bench.ends, bench.analyser.asked, bench.producer.sent) == (["filtered"], [], [])
    assert bench.rows.rows["default", "c-1"].reason == "greeting_or_thanks"


async def test_a_record_away_from_home_is_sent_on() -> None:
    """It ends there, not here."""
    bench = Bench()
    away = a_record(value_of(), partition=(home_of("where is my parcel") + 1) % 8)
    assert await bench.take(away)
    home = home_of("where is my parcel")
    assert bench.producer.sent == [("conversations.rehomed", home, away.value)]
    assert (bench.ends, bench.rows.rows) == (["rehomed"], {})


async def test_what_cannot_be_decoded_becomes_a_dead_letter_with_its_bytes() -> None:
    """Nothing is lost, and nothing is in the way: the slot is finished."""
    bench = Bench()
    assert await bench.take(a_record(b"not json \xff"))
    [(letter, conversation_id)] = bench.letters.sent
    assert (letter.value, letter.reason, conversation_id) == (b"not json \xff", "undecodable", None)
    assert bench.rows.rows == {}


async def test_a_dead_conversation_with_an_id_has_a_row() -> None:
    """Whoever asks for it by id learns how it ended."""
    bench = Bench(analyser_fails=[Unprocessable(DeadLetterReason.BAD_ANSWER, "no schema")])
    assert await bench.take(at_home())
    row = bench.rows.rows["default", "c-1"]
    assert (row.outcome, row.reason, bench.ends) == ("dead", "bad_answer", ["dead"])
    assert bench.events.sent == []


async def test_passing_failures_are_waited_out() -> None:
    """Provider and database come back; the outcome is that of the call that was paid for."""
    down = [Retryable("down")] * 3
    bench = Bench(analyser_fails=down, rows_fail=down)
    assert await bench.take(at_home())
    assert bench.ends == ["analysed"]
    assert len(bench.events.sent) == 1


async def test_a_defect_is_set_aside_after_bounded_attempts() -> None:
    """An error that nobody foresaw must not hold the partition for ever."""
    bench = Bench(analyser_fails=[ZeroDivisionError()] * attempts.DEFECT_ATTEMPTS)
    assert await bench.take(at_home())
    assert bench.letters.sent[0][0].reason is DeadLetterReason.INTERNAL_ERROR
    assert len(bench.analyser.asked) == attempts.DEFECT_ATTEMPTS


async def test_a_row_that_cannot_be_stored_makes_a_dead_letter() -> None:
    """And no event: the outcome is dead, once."""
    bench = Bench(rows_fail=[Unprocessable(DeadLetterReason.UNSTORABLE, "DataError")])
    assert await bench.take(at_home())
    assert (bench.ends, bench.events.sent) == (["dead"], [])
    assert bench.letters.sent[0][0].reason is DeadLetterReason.UNSTORABLE


async def test_a_dead_conversation_whose_row_is_refused_dies_once() -> None:
    """Its letter is durable; it must not come back for ever."""
    refused = Unprocessable(DeadLetterReason.UNSTORABLE, "DataError")
    bench = Bench(rows_fail=[refused, refused])
    assert await bench.take(at_home())
    assert (len(bench.letters.sent), bench.ends, bench.rows.rows) == (1, ["dead"], {})


async def test_an_event_that_cannot_be_sent_stops_the_worker() -> None:
    """The row is there already: a letter would be a second end. The slot stays open, so nothing is lost."""
    bench = Bench()
    bench.events.failures = [Unprocessable(DeadLetterReason.TOO_LARGE, "too large for the topic insights")]
    assert not await bench.take(at_home())
    assert [stop.what for stop in bench.stops] == ["an event cannot be sent"]
    assert (bench.letters.sent, bench.ends) == ([], [])
    assert bench.rows.rows["default", "c-1"].outcome == "analysed"


async def test_a_fatal_error_stops_the_worker_and_leaves_the_slot_open() -> None:
    """A wrong key must not turn the topic into dead letters: the record is read again after the restart."""
    fatal = Fatal("the key is wrong")
    bench = Bench(analyser_fails=[fatal])
    assert not await bench.take(at_home())
    assert (bench.stops, bench.letters.sent, bench.rows.rows) == ([fatal], [], {})


async def test_a_death_beyond_the_limit_leaves_the_slot_open() -> None:
    """Neither letter nor row: with the cause mended it may live."""
    bench = Bench(analyser_fails=[Unprocessable(DeadLetterReason.BAD_ANSWER, "no schema")])
    bench.letters.is_held = True
    assert not await bench.take(at_home())
    assert (bench.letters.sent, bench.rows.rows, bench.ends, bench.stops) == ([], {}, [], [])


async def test_nothing_is_finished_once_the_assignment_is_over() -> None:
    """Whoever has the partition now reads the record again."""
    bench = Bench()
    assert not await bench.steps.handle(at_home(), lambda: False)
    assert (bench.rows.rows, bench.ends) == ({}, [])
