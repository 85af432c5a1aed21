"""Figures of a run, and the checks that they must pass."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.outcome import OutcomeName
from streams.demo.figures import Calls, Check, Figures, Row, figures, percentile

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int, outcome: OutcomeName = "analysed", *, text: str = "", seconds: float = 1.0, ticks: int = 0) -> Row:
    reason = "too_short" if outcome == "filtered" else None
    analysed = RECEIVED + timedelta(seconds=seconds)
    return Row(f"c{number}", outcome, reason, RECEIVED, analysed, text or f"t{number}", ticks)


def held(result: Figures) -> dict[str, bool]:
    return {check.name: check.held for check in result.checks}


def test_each_conversation_is_counted_once_by_its_outcome() -> None:
    """in = analysed + cached + filtered + dead; equal texts are one distinct text, filtered ones need no answer."""
    rows = [row(1, text="a"), row(2, "cached", text="a"), row(3, "filtered"), row(4, "dead")]
    result = figures(["c1", "c2", "c3", "c4"], rows, Calls(1, 1))
    assert result.conversations == {"analysed": 1, "cached": 1, "filtered": 1, "dead": 1}
    assert (result.taken_in, result.distinct_texts, result.filter_reasons) == (4, 1, {"too_short": 1})
    assert result.add_up
    assert result.checks[0] == Check("sum", True, "4 in = 1 analysed + 1 cached + 1 filtered + 1 dead")


def test_a_lost_conversation_is_seen() -> None:
    """A row that is missing breaks the sum and is counted."""
    result = figures(["c1", "c2"], [row(1)], Calls(None, 0))
    assert held(result) == {"sum": False, "rows": False}
    assert [check.detail for check in result.checks] == [
        "2 in is not 1 analysed + 0 cached + 0 filtered + 0 dead",
        "rows of conversations: 1 missing, 0 never posted",
    ]


def test_a_conversation_that_nobody_posted_is_seen() -> None:
    """The sum alone could hide one lost and one invented."""
    result = figures(["c1", "c2"], [row(1), row(3)], Calls(None, 0))
    assert held(result) == {"sum": True, "rows": False}


@pytest.mark.parametrize(("calls", "holds"), [(1, True), (2, False), (0, False)])
def test_with_a_standin_calls_must_be_distinct_texts(calls: int, holds: bool) -> None:
    """A text asked twice is seen, and so is one that was never asked."""
    rows = [row(1, text="a"), row(2, "cached", text="a")]
    result = figures(["c1", "c2"], rows, Calls(calls, calls))
    assert held(result)["calls"] is holds
    assert result.add_up is holds


def test_times_are_those_of_conversations_with_an_insight() -> None:
    """What the prefilter ended at once must not make the others look faster."""
    rows = [row(1, seconds=1), row(2, "cached", seconds=3), row(3, "filtered", seconds=0)]
    result = figures(["c1", "c2", "c3"], rows, Calls(None, 0))
    assert (result.p50_s, result.p95_s) == (1.0, 3.0)


def test_cost_is_the_sum_of_the_rows() -> None:
    """10^10 ticks are a dollar."""
    assert figures([], [row(1, ticks=10**10), row(2, ticks=5 * 10**9)], Calls(None, 0)).cost_usd == 1.5


@pytest.mark.parametrize(("percent", "expected"), [(50, 2.0), (75, 3.0), (76, 4.0), (100, 4.0), (0, 1.0)])
def test_percentiles_are_by_nearest_rank(percent: float, expected: float) -> None:
    """Always a value that occurred."""
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == expected


def test_no_values_have_no_percentile() -> None:
    """Not zero: nothing was measured."""
    assert percentile([], 50) is None
