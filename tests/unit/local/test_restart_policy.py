"""When a dead part of the local stack is started again."""

from streams.local.restart_policy import RestartPolicy


def test_pauses_double_up_to_half_a_minute() -> None:
    """A part that keeps dying is tried after 1, 2, 4 ... and at most 30 seconds."""
    policy = RestartPolicy()
    assert [policy.died(now=0.0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_minute_alive_makes_the_pause_short_again() -> None:
    """Old troubles do not count against a part that has run well since."""
    policy = RestartPolicy()
    policy.started(0.0)
    assert [policy.died(1.0), policy.died(2.0)] == [1, 2]
    policy.started(10.0)
    assert policy.died(69.9) == 4
    policy.started(100.0)
    assert policy.died(160.0) == 1


def test_is_due_only_after_its_pause() -> None:
    """Nothing is due while it lives, nor before the pause is over."""
    policy = RestartPolicy()
    policy.started(100.0)
    assert not policy.is_due(1000.0)
    policy.died(200.0)
    assert policy.is_waiting
    assert [policy.is_due(200.9), policy.is_due(201.0)] == [False, True]


def test_a_start_ends_the_waiting() -> None:
    """Once started again, a part is neither waiting nor due."""
    policy = RestartPolicy()
    policy.died(5.0)
    policy.started(6.0)
    assert not policy.is_waiting
    assert not policy.is_due(1000.0)
