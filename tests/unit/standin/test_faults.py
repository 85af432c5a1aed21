"""Fault plans: rates, markers, and what is refused."""

import random

import msgspec
import pytest

from streams.standin.faults import FaultChooser, FaultKind, FaultPlan, Marker


def test_rates_are_shares_of_all_calls() -> None:
    """Of 10,000 calls about as many fail as was asked for, and the same ones with the same seed."""
    plan = FaultPlan(rates={FaultKind.HTTP_429: 0.2, FaultKind.RESET: 0.1})
    chosen = [[FaultChooser(plan, random.Random(7).random).choose("text")] for _ in range(3)]
    assert chosen[0] == chosen[1] == chosen[2]
    chooser = FaultChooser(plan, random.Random(7).random)
    kinds = [chooser.choose("text") for _ in range(10_000)]
    assert abs(kinds.count(FaultKind.HTTP_429) - 2_000) < 200
    assert abs(kinds.count(FaultKind.RESET) - 1_000) < 200
    assert kinds.count(None) + kinds.count(FaultKind.HTTP_429) + kinds.count(FaultKind.RESET) == 10_000


def test_a_marked_text_fails_as_often_as_its_marker_says() -> None:
    """Twice, then never again; other texts are not touched."""
    chooser = FaultChooser(FaultPlan(markers=(Marker("#bad", FaultKind.BAD_JSON, times=2),)), lambda: 0.99)
    assert [chooser.choose("a #bad text") for _ in range(4)] == [FaultKind.BAD_JSON, FaultKind.BAD_JSON, None, None]
    assert chooser.choose("a good text") is None


@pytest.mark.parametrize(
    "plan",
    [
        b'{"rates": {"http_429": 0.7, "reset": 0.7}}',
        b'{"rates": {"http_429": 2}}',
        b'{"rates": {"earthquake": 0.1}}',
        b'{"hangs": 3}',
        b'{"markers": [{"text": "", "kind": "hang"}]}',
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan: bytes) -> None:
    """A mistyped plan must not turn into a test without faults."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(plan, type=FaultPlan)
