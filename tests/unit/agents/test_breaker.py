"""The circuit breaker's states, on a hand-driven clock."""

import pytest

from agents.limits.breaker import CircuitBreaker, Permit


def admitted(breaker: CircuitBreaker, now_s: float = 0) -> Permit:
    permit = breaker.admit(now_s)
    assert permit is not None
    return permit


def opened(at_s: float = 0) -> CircuitBreaker:
    breaker = CircuitBreaker(errors=5, cooldown_s=10)
    for _ in range(5):
        breaker.failed(admitted(breaker, at_s), at_s)
    return breaker


def test_errors_in_a_row_open_it() -> None:
    """The fifth error in a row pauses calls; retry_after_s is the rest of the pause."""
    breaker = CircuitBreaker(errors=5, cooldown_s=10)
    for count in range(1, 6):
        assert breaker.state == "closed"
        breaker.failed(admitted(breaker, count), count)
    assert breaker.state == "open"
    assert breaker.admit(14.9) is None
    assert breaker.retry_after_s(12) == 3


def test_a_success_resets_the_count() -> None:
    """Errors that are not in a row never open it."""
    breaker = CircuitBreaker(errors=2, cooldown_s=10)
    for _ in range(10):
        breaker.failed(admitted(breaker), 0)
        breaker.succeeded(admitted(breaker))
    assert breaker.state == "closed"


def test_exactly_one_probe_passes_after_the_cool_down() -> None:
    """In the half-open state every call but the probe waits, with a retry_after_s greater than 0."""
    breaker = opened()
    admitted(breaker, 10)
    assert breaker.state == "half_open"
    assert [breaker.admit(10 + n / 10) for n in range(100)] == [None] * 100
    assert breaker.retry_after_s(11) > 0


def test_a_probe_that_hangs_makes_room_for_one_more_in_each_cool_down() -> None:
    """One text that hangs must not hold up all others; the first probe to return decides."""
    breaker = opened()
    admitted(breaker, 10)
    second = admitted(breaker, 20)
    assert breaker.admit(29.9) is None
    assert breaker.retry_after_s(29.9) > 0
    assert breaker.retry_after_s(30) == 0
    breaker.succeeded(second)
    assert breaker.state == "closed"


def test_a_probe_that_succeeds_closes_it() -> None:
    """After that calls pass freely, and the errors before are forgotten."""
    breaker = opened()
    breaker.succeeded(admitted(breaker, 10))
    assert breaker.state == "closed"
    for _ in range(4):
        breaker.failed(admitted(breaker, 11), 11)
    assert breaker.state == "closed"


def test_a_probe_that_fails_opens_it_for_another_cool_down() -> None:
    """One failed probe is enough, whatever the limit in a row."""
    breaker = opened()
    breaker.failed(admitted(breaker, 10), 25)
    assert breaker.state == "open"
    assert breaker.admit(34.9) is None
    assert breaker.admit(35) is not None


def test_a_released_probe_makes_room_for_the_next() -> None:
    """A cancelled probe proves nothing and must not block all others forever."""
    breaker = opened()
    breaker.released(admitted(breaker, 10))
    assert breaker.state == "half_open"
    assert breaker.admit(10) is not None


@pytest.mark.parametrize("now_s", [5, 10], ids=["while open", "while half open"])
def test_late_results_from_before_the_opening_change_nothing(now_s: float) -> None:
    """Neither a late success closes it, nor a late failure prolongs the pause or ends the probe."""
    breaker = CircuitBreaker(errors=5, cooldown_s=10)
    late = [admitted(breaker) for _ in range(10)]
    for permit in late[:5]:
        breaker.failed(permit, 0)
    probe = breaker.admit(now_s)
    state = breaker.state
    breaker.succeeded(late[5])
    breaker.failed(late[6], now_s)
    breaker.released(late[7])
    assert breaker.state == state
    assert breaker.admit(now_s) is None
    if probe is not None:
        breaker.succeeded(probe)
        assert breaker.state == "closed"
        breaker.failed(late[8], now_s)
        assert breaker.state == "closed"


@pytest.mark.parametrize(("errors", "cooldown_s"), [(0, 10), (5, 0)])
def test_limits_that_make_no_sense_are_refused(errors: int, cooldown_s: float) -> None:
    """A breaker that is always open or never pauses is a mistake in the settings."""
    with pytest.raises(ValueError, match="a breaker needs"):
        CircuitBreaker(errors, cooldown_s)
