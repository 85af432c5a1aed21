"""The dead-letter limit: where it stops, what it counts, and that it never lets more through, whatever comes."""

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams.pipeline.dead_letter_limit import LAST_OUTCOMES, MAX_AMONG_LAST, MAX_IN_A_ROW, DeadLetterLimit
from streams.pipeline.delivery import LetterHeld
from streams.pipeline.limited_letters import CountedOutcomes, LimitedLetters

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.errors import Fatal
from schemas.kafka import Origin
from schemas.outcome import Cached, Dead, Filtered, FilterReason, Outcome
from tests.fakes.analysis import NOON, an_answer
from tests.fakes.sinks import FakeLetters

BAD = DeadLetterReason.BAD_ANSWER


def origin_of(offset: int) -> Origin:
    return Origin("conversations", 0, offset)


class Bench:
    """A limit with records that die, each at an offset of its own, and others that live."""

    def __init__(self) -> None:
        self.stops: list[Fatal] = []
        self.limit = DeadLetterLimit(self.stops.append)
        self.offset = 0

    def die(self, count: int = 1, reason: DeadLetterReason = BAD) -> int:
        """How many of the letters were admitted."""
        self.offset += count
        offsets = range(self.offset - count, self.offset)
        return sum(self.limit.admits(origin_of(offset), reason) for offset in offsets)

    def live(self, count: int = 1) -> None:
        for _ in range(count):
            self.limit.lived()


def test_the_hundredth_in_a_row_is_the_last_letter() -> None:
    """It stops the worker at once, whether or not another record dies."""
    bench = Bench()
    assert bench.die(99) == 99
    assert bench.stops == []
    assert bench.die() == 1
    assert len(bench.stops) == 1
    assert bench.die(500) == 0
    assert len(bench.stops) == 1


def test_one_that_lives_begins_the_row_anew() -> None:
    """Such as one of ten thousand."""
    bench = Bench()
    bench.live(LAST_OUTCOMES)
    for _ in range(20):
        bench.die(99)
        bench.live(LAST_OUTCOMES)
    assert bench.stops == []


def test_a_tenth_of_the_last_outcomes_is_borne_and_no_more() -> None:
    """Every tenth record may die for ever; one more among the last thousand stops the worker."""
    bench = Bench()
    for _ in range(300):
        bench.die()
        bench.live(9)
    assert bench.stops == []
    bench.die(2)  # the first one pushes another death out of the thousand
    assert [fatal.why for fatal in bench.stops] == [
        "101 among the last 1000 outcomes; the most frequent reason is bad_answer, 101 times"
    ]


def test_few_outcomes_are_not_judged_by_their_share() -> None:
    """Half of the first 200 may die: 100 may still be 10 % of the first 1,000."""
    bench = Bench()
    for _ in range(MAX_AMONG_LAST):
        bench.die()
        bench.live()
    assert bench.stops == []
    assert bench.die() == 1
    assert bench.limit.is_reached


def test_a_record_that_dies_again_counts_once() -> None:
    """A partition that comes and goes before its offset is committed is no row of deaths; its letters may be sent."""
    bench = Bench()
    for _ in range(30):
        assert all(bench.limit.admits(origin_of(offset), BAD) for offset in range(20))
    assert bench.stops == []


def test_a_letter_on_its_way_is_sent_though_the_limit_was_reached_meanwhile() -> None:
    """Its sending may have to be tried again; it was counted, so it must not be lost either."""
    bench = Bench()
    bench.die(MAX_IN_A_ROW)
    assert bench.limit.admits(origin_of(MAX_IN_A_ROW - 1), BAD)


def test_stopped_it_stays() -> None:
    """Work in flight that ends well tells nothing of the records that wait."""
    bench = Bench()
    bench.die(MAX_IN_A_ROW)
    bench.live(5_000)
    assert bench.die() == 0


def test_what_is_told_names_the_cause_and_the_way_out() -> None:
    """A person must see at once why, and what to do."""
    bench = Bench()
    bench.die(1, DeadLetterReason.UNDECODABLE)
    bench.die(99)
    [fatal] = bench.stops
    assert fatal.why == "100 in a row; the most frequent reason is bad_answer, 99 times"
    assert "dlq list" in fatal.hint
    assert "restart the worker" in fatal.hint


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 120)), max_size=60))
def test_never_more_than_the_limit_pass(runs: list[tuple[bool, int]]) -> None:
    """In any order of ends: at most 100 letters in a row, at most 101 among 1,000 outcomes, none after the stop."""
    bench, row = Bench(), 0
    last: deque[bool] = deque(maxlen=LAST_OUTCOMES)
    for dies, count in runs:
        for _ in range(count):
            was_reached = bench.limit.is_reached
            passed = bool(bench.die()) if dies else False
            assert not (passed and was_reached)
            assert passed or was_reached or not dies
            if not dies:
                bench.live()
            row = row + passed if dies else 0
            last.append(passed)
            assert row <= MAX_IN_A_ROW
            assert sum(last) <= MAX_AMONG_LAST + 1
            if not was_reached:
                assert bench.limit.is_reached == (row == MAX_IN_A_ROW or sum(last) > MAX_AMONG_LAST)


def a_letter(offset: int) -> DeadLetter:
    return DeadLetter(
        key=None,
        value=b"x",
        headers=(),
        reason=BAD,
        detail="no schema",
        origin=origin_of(offset),
        received_at=NOON,
        at=NOON,
    )


async def test_of_five_hundred_dying_at_once_a_hundred_letters_are_sent() -> None:
    """The limit is asked before a letter is sent, not when it was."""
    sent, limit = FakeLetters(), DeadLetterLimit(lambda _: None)
    letters = LimitedLetters(limit, sent)
    ends = await asyncio.gather(*(letters.send(a_letter(n), None) for n in range(500)), return_exceptions=True)
    assert len(sent.sent) == MAX_IN_A_ROW
    assert [type(end) for end in ends] == [type(None)] * 100 + [LetterHeld] * 400


class Ends:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Outcome | None] = []

    def ended(self, outcome: Outcome) -> None:
        self.told.append(outcome)

    def rehomed(self) -> None:
        self.told.append(None)


@pytest.mark.parametrize(
    ("outcome", "interrupts"),
    [
        (Cached(an_answer()), True),
        (Filtered(FilterReason.TOO_SHORT), True),
        (Dead(BAD, ""), False),  # it was counted when its letter was sent
        (None, False),  # sent home: it ends there
    ],
)
def test_only_a_conversation_that_ended_well_interrupts_a_row(outcome: Outcome | None, interrupts: bool) -> None:
    """And whoever else listens hears everything."""
    bench, ends = Bench(), Ends()
    outcomes = CountedOutcomes(bench.limit, ends)
    bench.die(MAX_IN_A_ROW - 1)
    if outcome is None:
        outcomes.rehomed()
    else:
        outcomes.ended(outcome)
    bench.die()
    assert bench.limit.is_reached != interrupts
    assert ends.told == [outcome]
