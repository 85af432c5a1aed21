"""The committed offsets in any order of events: a long run of the model, and the proof that it sees each defect."""

import os
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test

from streams.worker import intake, offsets
from tests.support.mutants import Mutant
from tests.unit.worker.mutants import MUTANTS, mutated
from tests.unit.worker.tracker_model import Parts, TrackerMachine

#: The long run is GROK_INSIGHTS_MODEL_STEPS=1000000; a printed seed repeats a run.
STEPS = int(os.environ.get("GROK_INSIGHTS_MODEL_STEPS", "200000"))
SEED = int(os.environ.get("GROK_INSIGHTS_MODEL_SEED") or random.randrange(2**32))
STEPS_PER_EXAMPLE = 200
#: Hypothesis also tries shorter examples, by less than this share.
RESERVE = 1.05
#: A mutant that survives this many examples is not found.
MUTANT_EXAMPLES = 200

COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=True)
FEW = settings(COMMON, max_examples=MUTANT_EXAMPLES, stateful_step_count=60, phases=[Phase.generate])
MUST_HAPPEN = {
    *("read", "read again", "gap passed", "fetched late"),
    *("finished", "finished again", "finished late", "failed"),
    *("commit", "commit refused", "commit answer lost", "commit answered late"),
    *("fenced", "revoked", "assigned"),
}


def run_model(parts: Parts, seed_: int, options: settings) -> Counter[str]:
    """Runs the model; what happened on the way."""
    happened: Counter[str] = Counter()

    @seed(seed_)
    def machine() -> TrackerMachine:
        return TrackerMachine(parts, happened)

    run_state_machine_as_test(machine, settings=options)  # type: ignore[arg-type]
    return happened


@pytest.mark.parametrize(
    "steps", [2_000, pytest.param(STEPS, marks=[pytest.mark.slow, pytest.mark.timeout(180 + STEPS // 200)], id="full")]
)
def test_offsets_are_the_contiguous_prefix_whatever_happens(steps: int) -> None:
    """Polls, acks in any order, failures, commit errors and rebalances: never past an unfinished record, never back."""
    print(f"GROK_INSIGHTS_MODEL_SEED={SEED}")
    options = settings(
        COMMON,
        max_examples=int(steps / STEPS_PER_EXAMPLE * RESERVE) + 1,
        stateful_step_count=STEPS_PER_EXAMPLE,
        phases=[Phase.generate, Phase.shrink],
    )
    happened = run_model(Parts(offsets, intake), SEED, options)
    print(", ".join(f"{what}: {count:,}" for what, count in sorted(happened.items())))
    assert happened["steps"] >= steps
    assert happened.keys() >= MUST_HAPPEN
    assert all(happened[what] for what in MUST_HAPPEN)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_every_mutant_is_killed(mutant: Mutant) -> None:
    """The mutant is built before the check: one whose source has changed must not count as killed."""
    parts = mutated(mutant)
    with pytest.raises(Exception) as caught:  # noqa: PT011  any failure kills it: our assertion or its own error
        run_model(parts, SEED, FEW)
    assert not isinstance(caught.value, HypothesisException), "the model itself is at fault"


def test_what_is_not_mutated_stays_green() -> None:
    """It is loaded the same way, so that no mutant fails because of that; each mutant is different."""
    run_model(mutated(), SEED, FEW)
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS) >= 20
