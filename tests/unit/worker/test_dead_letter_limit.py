"""The dead-letter limit: where it stops the worker, what it counts, and that it never admits more."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal
from schemas.outcome import Dead
from streams.worker.dead_letter_limit import OUTCOMES_PER_DEATH, DeadLetterLimit
from tests.support.factories import a_dead_job, a_record

BAD = DeadLetterReason.BAD_ANSWER
LIMIT = 100
LAST_OUTCOMES = LIMIT * OUTCOMES_PER_DEATH


class Bench:
    """A limit with records that die, each at an offset of its own, and others that live."""

    def __init__(self, limit: int = LIMIT, accepted: int = 0) -> None:
        self.stops: list[Fatal] = []
        self.limit = DeadLetterLimit(self.stops.append, limit, accepted)
        self.offset = 0

    def die(self, count: int = 1, reason: DeadLetterReason = BAD) -> int:
        """Lets records die and returns how many dead letters were admitted."""
        self.offset += count
        offsets = range(self.offset - count, self.offset)
        return sum(self.admits(offset, reason) for offset in offsets)

    def admits(self, offset: int, reason: DeadLetterReason = BAD) -> bool:
        dead = Dead(reason, "")
        return self.limit.admits(a_dead_job(a_record(offset=offset), dead), dead)

    def live(self, count: int = 1) -> None:
        self.limit.delivered(count)


def test_the_hundredth_in_a_row_is_the_last_dead_letter() -> None:
    """It stops the worker at once, whether or not another record dies."""
    bench = Bench()
    assert bench.die(99) == 99
    assert bench.stops == []
    assert bench.die() == 1
    assert len(bench.stops) == 1
    assert bench.die(500) == 0
    assert len(bench.stops) == 1


def test_a_living_record_ends_the_run_of_deaths() -> None:
    """One in ten thousand is an example."""
    bench = Bench()
    bench.live(LAST_OUTCOMES)
    for _ in range(20):
        bench.die(99)
        bench.live(LAST_OUTCOMES)
    assert bench.stops == []


def test_a_tenth_of_the_last_outcomes_may_die_and_no_more() -> None:
    """Every tenth record may die indefinitely; one more among the last thousand stops the worker."""
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
    for _ in range(LIMIT):
        bench.die()
        bench.live()
    assert bench.stops == []
    assert bench.die() == 1
    assert bench.limit.is_reached


def test_a_record_that_dies_again_counts_once() -> None:
    """A partition that is revoked and assigned again before its offset is committed causes no run of deaths; its dead
    letters may be sent."""
    bench = Bench()
    for _ in range(30):
        assert all(bench.admits(offset) for offset in range(20))
    assert bench.stops == []


def test_a_dead_letter_on_its_way_is_sent_though_the_limit_was_reached_meanwhile() -> None:
    """Sending it may need several attempts; it was counted, so it must not be lost."""
    bench = Bench()
    bench.die(LIMIT)
    assert bench.admits(LIMIT - 1)


def test_stopped_it_stays() -> None:
    """Work in flight that ends well proves nothing about the records that wait."""
    bench = Bench()
    bench.die(LIMIT)
    bench.live(5_000)
    assert bench.die() == 0


def test_the_error_names_the_cause_and_the_way_out() -> None:
    """A person must see at once why, and what to do."""
    bench = Bench()
    bench.die(1, DeadLetterReason.UNDECODABLE)
    bench.die(99)
    [fatal] = bench.stops
    assert fatal.why == "100 in a row; the most frequent reason is bad_answer, 99 times"
    assert "dlq list" in fatal.hint
    assert "restart the worker" in fatal.hint
    assert "--accept-dead-letters N" in fatal.hint


def test_the_limit_is_a_setting() -> None:
    """In a row, and among ten times as many outcomes."""
    bench = Bench(limit=3)
    assert bench.die(5) == 3
    bench = Bench(limit=3)
    for _ in range(3):
        bench.die()
        bench.live()
    assert bench.stops == []
    bench.die()
    assert [fatal.why for fatal in bench.stops] == [
        "4 among the last 7 outcomes; the most frequent reason is bad_answer, 4 times"
    ]


def test_accepted_dead_letters_do_not_count() -> None:
    """Each record once, however often it dies; after them the limit holds as ever."""
    bench = Bench(accepted=1_500)
    assert bench.die(1_500) == 1_500
    assert all(bench.admits(offset) for offset in range(1_500))
    assert bench.die(LIMIT - 1) == LIMIT - 1
    assert bench.stops == []
    assert bench.die(500) == 1
    assert len(bench.stops) == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 120)), max_size=60))
def test_never_more_than_the_limit_pass(runs: list[tuple[bool, int]]) -> None:
    """In any order: at most 100 dead letters in a row, 101 among 1,000 outcomes, none after the stop."""
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
            assert row <= LIMIT
            assert sum(last) <= LIMIT + 1
            if not was_reached:
                assert bench.limit.is_reached == (row == LIMIT or sum(last) > LIMIT)
