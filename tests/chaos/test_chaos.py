"""The short form of `make chaos` and of the proof that its judge finds faults."""

from pathlib import Path

import pytest

from tests.chaos.proof import prove
from tests.chaos.rounds import Plan, run_rounds
from tests.support.servers import skip_unless_kafka

SEED = 20_261_124


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_paid_again_in_three_rounds_of_faults(tmp_path: Path) -> None:
    """Kills, freezes and rebalances under load; all of them really happened."""
    skip_unless_kafka()
    total = run_rounds(tmp_path, Plan(SEED, rounds=3, ids=2_500), print)
    print(total.summary)
    assert not total.violations
    assert total.did_not_happen == []
    figures = total.figures
    assert figures["distinct_texts"] <= figures["calls"] <= figures["distinct_texts"] + figures["cut_off"]


@pytest.mark.kafka
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", ["commit_before_sink", "changelog_not_written"])
async def test_a_planted_bug_turns_the_judge_red(tmp_path: Path, bug: str) -> None:
    """Two of them here; `make chaos ARGS=--prove` does all, and record.json has what was found."""
    skip_unless_kafka()
    proof = await prove(tmp_path, SEED, bug, print)
    assert proof.is_right, proof
