"""Back-off and retry: how long the waits are, which failures are tried again, and how often."""

import asyncio

import pytest

from agents.limits.retry import DEFECT_ATTEMPTS, Backoff, NoLongerWanted, retry
from schemas.errors import Fatal, Retryable, Unprocessable

BACKOFF = Backoff(base_s=0.1, cap_s=5)


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    """With the largest jitter the waits are 1, 2, 4, 8, 10, 10 seconds."""
    backoff = Backoff(base_s=1, cap_s=10)
    assert [backoff.delay_s(attempt, lambda: 1.0) for attempt in range(6)] == [1, 2, 4, 8, 10, 10]


def test_jitter_reaches_down_to_nothing() -> None:
    """Full jitter: the wait is the drawn share of the ceiling."""
    backoff = Backoff(base_s=1, cap_s=10)
    assert [backoff.delay_s(2, iter([share]).__next__) for share in (0.0, 0.25, 0.5)] == [0, 1, 2]


def test_any_number_of_attempts_has_a_finite_wait() -> None:
    """The power never overflows."""
    assert Backoff(base_s=0.1, cap_s=60).delay_s(10**9, lambda: 0.5) == 30


@pytest.mark.parametrize(("base_s", "cap_s"), [(0, 1), (2, 1)])
def test_bounds_that_make_no_sense_are_refused(base_s: float, cap_s: float) -> None:
    """A base of 0 would be a busy loop."""
    with pytest.raises(ValueError, match="a back-off needs"):
        Backoff(base_s, cap_s)


class Work:
    """Raises the given errors one after the other, then returns; remembers when it was called."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.called_at_s: list[float] = []

    async def __call__(self) -> str:
        self.called_at_s.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_a_passing_failure_is_waited_out() -> None:
    """However often it comes."""
    work = Work(*[Retryable("down")] * 100)
    assert await retry(work, BACKOFF, lambda: True) == "done"
    assert len(work.called_at_s) == 101


async def test_the_wait_is_at_least_what_the_failure_asks_for() -> None:
    """Plus jitter, so that callers which failed together do not return together."""
    work = Work(Retryable("503", retry_after_s=60))
    await retry(work, BACKOFF, lambda: True)
    first_s, second_s = work.called_at_s
    assert 60 <= second_s - first_s <= 60 + BACKOFF.cap_s


async def test_a_defect_has_a_bound() -> None:
    """Passing failures in between do not count towards it."""
    work = Work(*[Retryable("down"), ZeroDivisionError()] * 100)
    with pytest.raises(ZeroDivisionError):
        await retry(work, BACKOFF, lambda: True)
    assert len(work.called_at_s) == 2 * DEFECT_ATTEMPTS


@pytest.mark.parametrize("error", [Unprocessable("refused", ""), Fatal("stop"), NoLongerWanted()])
async def test_what_another_attempt_cannot_fix_is_raised_at_once(error: Exception) -> None:
    """One attempt, no more."""
    work = Work(error)
    with pytest.raises(type(error)):
        await retry(work, BACKOFF, lambda: True)
    assert len(work.called_at_s) == 1


async def test_nothing_is_tried_once_it_is_no_longer_wanted() -> None:
    """This holds after a failure that came while it was still wanted, too."""
    wanted = iter([True, False])
    work = Work(Retryable("down"))
    with pytest.raises(NoLongerWanted):
        await retry(work, BACKOFF, lambda: next(wanted))
    assert len(work.called_at_s) == 1
