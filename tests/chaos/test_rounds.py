"""A run proves nothing unless its faults really happened."""

from collections import Counter

from tests.chaos.rounds import IN_FLIGHT_AT_A_KILL, ROUNDS_FOR_ALL_FAULTS, Total
from tests.chaos.schedule import FAULTS

_HAPPENED = (
    *("workers_killed", "workers_frozen", "frozen_out", "rebalances", "redelivered", "accepted_by_gateway"),
    *("cut_off", "rounds_under_load", "shards_rebuilt", *FAULTS),
)


def run(rounds: int, **figures: int) -> Total:
    """All went as it should, but for these figures."""
    figures_of_run = Counter(dict.fromkeys(_HAPPENED, rounds)) + Counter(workers_stopped=2, stopped_in_order=2)
    figures_of_run.update(figures)
    return Total(rounds, figures_of_run, in_flight_at_kills=[IN_FLIGHT_AT_A_KILL])


def test_a_run_in_which_everything_happened_lacks_nothing() -> None:
    assert run(3).did_not_happen == []
    assert run(ROUNDS_FOR_ALL_FAULTS).did_not_happen == []


def test_a_run_in_which_nothing_happened_proves_nothing() -> None:
    """Not even a short one."""
    absent = Total(rounds=3).did_not_happen
    assert {"workers_killed", "frozen_out", "redelivered", "cut_off", "rounds_under_load"} <= set(absent)
    assert f"{IN_FLIGHT_AT_A_KILL} calls in flight at a kill (at most 0)" in absent


def test_a_kind_of_fault_that_never_hit_is_reported_for_a_long_run_only() -> None:
    assert run(3, grok_bad=-3).did_not_happen == []
    assert run(ROUNDS_FOR_ALL_FAULTS, grok_bad=-ROUNDS_FOR_ALL_FAULTS).did_not_happen == ["grok_bad"]


def test_shares_are_looked_at_in_a_long_run_only() -> None:
    """By chance, the only stop of three rounds may not have been graceful."""
    assert run(3, stopped_in_order=-2).did_not_happen == []
    absent = run(ROUNDS_FOR_ALL_FAULTS, stopped_in_order=-2).did_not_happen
    assert absent == ["stopped_in_order only 0 times, of 2 workers_stopped"]
