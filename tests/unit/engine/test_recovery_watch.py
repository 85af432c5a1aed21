"""A recovery that has stalled ends the worker; one that moves, however slowly, is left alone."""

from types import SimpleNamespace
from typing import cast

import faust
import pytest

from schemas.errors import Fatal, Retryable
from streams.engine.recovery_watch import RecoveryWatch, watch_recovery


def test_a_recovery_that_moves_is_left_alone() -> None:
    """Also when it takes far longer than the limit in all."""
    watch = RecoveryWatch(stall_s=15)
    assert not any(watch.has_stalled(True, remaining=1_000 - n, now_s=n * 14.0) for n in range(100))


def test_a_stall_is_noticed_after_its_time() -> None:
    """Counted from the last record that was read."""
    watch = RecoveryWatch(stall_s=15)
    assert not watch.has_stalled(True, remaining=10, now_s=0)
    assert not watch.has_stalled(True, remaining=9, now_s=14)
    assert not watch.has_stalled(True, remaining=9, now_s=28)
    assert watch.has_stalled(True, remaining=9, now_s=29)


def test_a_new_recovery_has_its_own_time() -> None:
    """Time before it does not count."""
    watch = RecoveryWatch(stall_s=15)
    watch.has_stalled(True, remaining=9, now_s=0)
    assert not watch.has_stalled(False, remaining=9, now_s=100)
    assert not watch.has_stalled(True, remaining=9, now_s=200)


async def test_a_recovery_waits_for_brokers_that_are_away() -> None:
    """An outage of any length ends no worker; only while they answer may a stall be the recovery's own fault."""
    checks = 0

    async def check_broker() -> None:
        nonlocal checks
        checks += 1
        if checks < 20:
            raise Retryable("the broker does not answer")

    recovery = SimpleNamespace(active_remaining_total=lambda: 9)
    app = cast(faust.App, SimpleNamespace(in_recovery=True, tables=SimpleNamespace(recovery=recovery)))
    with pytest.raises(Fatal, match="has stalled"):
        await watch_recovery(app, check_broker, stall_s=0, look_every_s=0)
    assert checks == 20
