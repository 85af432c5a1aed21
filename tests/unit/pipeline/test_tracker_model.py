"""The offsets in every order of events: a long walk of the model, and the proof that the model sees a defect."""

import os
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test
from streams.pipeline import assignment, committer, offsets

from tests.unit.pipeline.mutants import MUTANTS, Mutant, mutated
from tests.unit.pipeline.tracker_model import Parts, TrackerMachine

#: The long walk is GROK_INSIGHTS_MODEL_STEPS=1000000; a seed that was printed repeats a walk.
STEPS = int(os.environ.get("GROK_INSIGHTS_MODEL_STEPS", "200000"))
SEED = int(os.environ.get("GROK_INSIGHTS_MODEL_SEED") or random.randrange(2**32))
STEPS_PER_EXAMPLE = 200
#: Hypothesis also tries shorter examples, by less than this share.
RESERVE = 1.05
#: A mutant that survives so many examples is not seen.
MUTANT_EXAMPLES = 200

COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=True)
FEW = settings(COMMON, max_examples=MUTANT_EXAMPLES, stateful_step_count=60, phases=[Phase.generate])
MUST_HAPPEN = {
    *("ack", "ack again", "late ack", "late admit", "failed", "hole passed"),
    *("verdict NEXT", "verdict REPEAT", "verdict JUMP"),
    *("commit", "commit error", "commit answer lost", "late commit answer"),
    *("fenced", "revoked", "assigned"),
}


def walk(parts: Parts, seed_: int, options: settings) -> Counter[str]:
    """Runs the model; what happened on the way."""
    happened: Counter[str] = Counter()

    @seed(seed_)
    def machine() -> TrackerMachine:
        return TrackerMachine(parts, happened)

    run_state_machine_as_test(machine, settings=options)  # type: ignore[arg-type]
    return happened


@pytest.mark.timeout(120 + STEPS // 1000)
def test_offsets_are_the_contiguous_prefix_whatever_happens() -> None:
    """Polls, acks in any order, failures, commit errors and rebalances: never past an unfinished record, never back."""
    print(f"GROK_INSIGHTS_MODEL_SEED={SEED}")
    options = settings(
        COMMON,
        max_examples=int(STEPS / STEPS_PER_EXAMPLE * RESERVE),
        stateful_step_count=STEPS_PER_EXAMPLE,
        phases=[Phase.generate, Phase.shrink],
    )
    happened = walk(Parts(offsets, assignment, committer), SEED, options)
    print(", ".join(f"{what}: {count:,}" for what, count in sorted(happened.items())))
    assert happened["steps"] >= STEPS
    assert happened.keys() >= MUST_HAPPEN
    assert all(happened[what] for what in MUST_HAPPEN)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_every_mutant_is_killed(mutant: Mutant) -> None:
    """A model that stays green over a planted defect would prove nothing."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  however it turns red: an assertion of ours, or its own error
        walk(mutated(mutant), SEED, FEW)
    assert not isinstance(caught.value, HypothesisException), "the model itself is at fault"


def test_what_is_not_mutated_stays_green() -> None:
    """Loaded the same way, so that no mutant dies of that; and there are at least 20, each of its own."""
    walk(mutated(), SEED, FEW)
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS) >= 20
