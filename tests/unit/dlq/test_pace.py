"""A rate is kept evenly."""

import pytest

from schemas.errors import Fatal
from streams.dlq.pace import Pace, check_rate


def test_turns_are_a_gap_apart() -> None:
    """Whoever asks early waits for all who asked before."""
    pace = Pace(10)
    assert [round(pace.wait_s(100.0), 6) for _ in range(3)] == [0.0, 0.1, 0.2]


def test_a_pause_saves_up_no_burst() -> None:
    """After a minute of silence the next two are a gap apart all the same."""
    pace = Pace(10)
    pace.wait_s(0.0)
    assert [round(pace.wait_s(60.0), 6) for _ in range(2)] == [0.0, 0.1]


def test_without_a_rate_nobody_waits() -> None:
    """As fast as it goes."""
    pace = Pace(None)
    assert [pace.wait_s(1.0) for _ in range(3)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("per_s", "most"), [(0.5, 1), (10, 10), (2.5, 2)])
def test_one_second_s_worth_may_be_under_way(per_s: float, most: int) -> None:
    """At least one, or nothing would ever move."""
    assert Pace(per_s).most_at_once == most


@pytest.mark.parametrize("per_s", [float("nan"), float("inf"), -1.0, 0.0, 0.01])
def test_what_is_no_rate_is_misuse(per_s: float) -> None:
    """Exit code 2; no rate at all is fine."""
    check_rate(None)
    check_rate(0.1)
    with pytest.raises(Fatal, match="--rate") as error:
        check_rate(per_s)
    assert error.value.exit_code == 2
