"""The local analyser reaches what docs/quality.md states, also on labels that it was not tuned on."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest

from agents.local.analyser import LocalInsights
from tests.quality.evaluation import LABELS, Part, Share, judge, read_labels, says_nothing

#: In per cent; "at most" for what should not happen.
AT_LEAST = {"sentiment": 75, "urgency that matters": 80, "intent": 80, "summary": 80, "action_needed": 75}
AT_MOST = {"summary is a greeting": 0, "low rated as urgent": 5}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=get_args(Part))
def shares(request: pytest.FixtureRequest) -> Mapping[str, Share]:
    return judge(read_labels(request.param), LocalInsights().insight)


def test_the_aims_are_met(shares: Mapping[str, Share]) -> None:
    """Each on its own: a field that got worse is named."""
    missed = {field: str(shares[field]) for field, aim in AT_LEAST.items() if shares[field].percent < aim}
    missed |= {field: str(shares[field]) for field, aim in AT_MOST.items() if shares[field].percent > aim}
    assert not missed


def test_the_documented_figures_are_those_of_today(shares: Mapping[str, Share]) -> None:
    """docs/quality.md has a row for each field, with these figures."""
    rows = [line for line in (ROOT / "docs/quality.md").read_text().splitlines() if line.startswith("|")]
    for field, share in shares.items():
        assert any(line.startswith(f"| {field} |") and str(share) in line for line in rows), f"{field}: {share}"


def test_there_are_enough_labels() -> None:
    """At least 150 rows, a third of them not tuned on, each once, and every row says where it is from."""
    labels = read_labels()
    assert len(labels) >= 150
    assert len({label.id for label in labels}) == len(labels)
    assert sum(label.part != "tuned" for label in labels) >= len(labels) / 3
    sources = LABELS.with_name("SOURCES.md").read_text()
    for source in {label.source for label in labels}:
        row = re.search(rf"^\| {re.escape(source)} \|.*\| (\d+) \|$", sources, re.MULTILINE)
        assert row is not None
        assert int(row[1]) == sum(label.source == source for label in labels)


def test_what_counts_as_a_greeting() -> None:
    """A courtesy does, and a scrap of a text that has more to say; a short text may be its own summary."""
    assert says_nothing("Hello", "user: Hello\nuser: my router is broken")
    assert says_nothing("HEY HO!", "user: HEY HO!\nuser: my router is broken")
    assert not says_nothing("minor gripe.", "minor gripe.")
