"""Back-off: bounds and growth of the waits."""

import pytest

from agents.limits.retry import Backoff


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
