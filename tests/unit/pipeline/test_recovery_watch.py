"""A recovery that stands still is noticed; one that moves, however slowly, is left alone."""

from types import SimpleNamespace
from typing import cast

import faust
import pytest
from streams.pipeline.recovery_watch import RecoveryWatch, watch_recovery

from schemas.errors import Fatal, Retryable


def test_a_recovery_that_moves_is_left_alone() -> None:
    """Also when it takes far longer than the limit in all."""
    watch = RecoveryWatch(standstill_s=15)
    assert not any(watch.stands_still(True, remaining=1_000 - n, now_s=n * 14.0) for n in range(100))


def test_a_standstill_is_noticed_after_its_time() -> None:
    """Counted from the last record that was read."""
    watch = RecoveryWatch(standstill_s=15)
    assert not watch.stands_still(True, remaining=10, now_s=0)
    assert not watch.stands_still(True, remaining=9, now_s=14)
    assert not watch.stands_still(True, remaining=9, now_s=28)
    assert watch.stands_still(True, remaining=9, now_s=29)


def test_a_new_recovery_has_its_own_time() -> None:
    """What stood still before it does not count."""
    watch = RecoveryWatch(standstill_s=15)
    watch.stands_still(True, remaining=9, now_s=0)
    assert not watch.stands_still(False, remaining=9, now_s=100)
    assert not watch.stands_still(True, remaining=9, now_s=200)


async def test_a_recovery_waits_for_brokers_that_are_away() -> None:
    """An outage of any length ends no worker; only then may a standstill be the recovery's own fault."""
    checks = 0

    async def check_broker() -> None:
        nonlocal checks
        checks += 1
        if checks < 20:
            raise Retryable("the broker does not answer")

    recovery = SimpleNamespace(active_remaining_total=lambda: 9)
    app = cast(faust.App, SimpleNamespace(in_recovery=True, tables=SimpleNamespace(recovery=recovery)))
    with pytest.raises(Fatal, match="stands still"):
        await watch_recovery(app, check_broker, standstill_s=0, look_every_s=0)
    assert checks == 20
