"""The offset up to which a shard has every answer that its changelog has."""

import random
import secrets

from streams.engine.answers_table import OffsetRun


def test_it_moves_over_an_unbroken_run_only() -> None:
    """A missing offset belongs to another worker, or is not confirmed yet."""
    run = OffsetRun()
    assert [run.add(-1, 0), run.add(0, 2), run.add(0, 3), run.add(0, 1)] == [0, 0, 0, 3]


def test_any_order_ends_at_the_end() -> None:
    """Each offset is added once, shuffled: the run is complete when the last one comes."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    offsets = list(range(10, 500))
    random.Random(seed).shuffle(offsets)
    run, reached = OffsetRun(), 9
    for offset in offsets:
        reached = run.add(reached, offset)
        assert reached < min((later for later in offsets if later > reached), default=500)
    assert reached == 499


def test_a_recovery_in_between_is_taken_up() -> None:
    """Recovery has read the missing offsets: the run continues where the shard now ends."""
    run = OffsetRun()
    assert run.add(3, 9) == 3
    assert run.add(8, 10) == 10


def test_a_gap_that_stays_costs_bounded_memory() -> None:
    """The run then ends at the gap; recovery has more to read, and nothing else is lost."""
    run = OffsetRun()
    for offset in range(1, 3 * OffsetRun.MAX_AHEAD):
        assert run.add(-1, offset) == -1
    assert len(run._ahead) == OffsetRun.MAX_AHEAD


def test_a_full_run_still_takes_what_fills_its_gap() -> None:
    """Otherwise it would never move again."""
    run, full = OffsetRun(), OffsetRun.MAX_AHEAD
    for offset in range(1, full + 1):
        run.add(-1, offset)
    assert run.add(-1, 0) == full
