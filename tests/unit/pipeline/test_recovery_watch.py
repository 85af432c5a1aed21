"""A recovery that stands still is noticed; one that moves, however slowly, is left alone."""

from streams.pipeline.recovery_watch import RecoveryWatch


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
