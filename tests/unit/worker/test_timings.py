"""Every part of a stop and of a rebalance may take its whole time, and the sum still keeps the promise."""

import pytest

from schemas.settings import Settings
from streams.engine.consumer import LEAVE_TIMEOUT_S
from streams.worker.timings import Timings, timings

#: Seen of Faust's own stop, between our steps.
FAUST_S = 0.5
CALL_S = 5.0


def settings(session_timeout_s: float = 10.0, rebalance_timeout_s: float = 12.0) -> Settings:
    return Settings(
        _env_file=None,
        kafka_session_timeout_s=session_timeout_s,
        kafka_rebalance_timeout_s=rebalance_timeout_s,
    )


@pytest.mark.parametrize("rebalance_timeout_s", [6.0, 12.0, 60.0])
def test_a_stop_ends_before_its_last_resort(rebalance_timeout_s: float) -> None:
    """Also when brokers are frozen, and so every step takes all of its time."""
    times = timings(settings(rebalance_timeout_s=rebalance_timeout_s))
    ours_s = times.stop_drain_s + times.keep_s + times.last_commit_s + times.reader_stop_s + times.part_stop_s
    assert ours_s + LEAVE_TIMEOUT_S + FAUST_S < times.stop_s < 10


@pytest.mark.parametrize("rebalance_timeout_s", [6.0, 12.0, 60.0])
def test_an_assignment_ends_within_the_time_to_rejoin(rebalance_timeout_s: float) -> None:
    """A member that is later is replaced, and its last commit refused."""
    times = timings(settings(rebalance_timeout_s=rebalance_timeout_s))
    assert times.drain_s + times.keep_s + times.last_commit_s + times.reader_stop_s < times.rebalance_timeout_s


def test_calls_get_the_time_that_they_take() -> None:
    """By default: a call that is cancelled may be paid for twice."""
    assert min(Timings().drain_s, Timings().stop_drain_s) >= CALL_S


def test_the_default_settings_are_the_default_timings() -> None:
    """There is one place for each number."""
    assert timings(settings()) == Timings()


def test_two_heartbeats_may_be_lost() -> None:
    """Before the group replaces a worker."""
    times = timings(settings(session_timeout_s=6.0))
    assert 3 * times.heartbeat_interval_s < times.session_timeout_s == 6.0
