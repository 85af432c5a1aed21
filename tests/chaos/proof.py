"""The harness proven: with each planted bug the judge must turn red, and the table tells after how many rounds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.planted_bugs import BUGS, HARMLESS
from tests.chaos.rounds import Plan, run_world

MAX_ROUNDS = 3
_IDS = 2_500
_CALM_IDS = 400
#: What is missing then will rather not come: with a bug, most rounds end so.
_SETTLE_WITHIN_S = 120.0


#: Correct workers, and such that lose records as Faust does: with both the judge must stay green.
CONTROLS: tuple[str | None, ...] = (None, *HARMLESS)


@dataclass(frozen=True)
class Proof:
    """What became of one bug, or of a control; `findings` are the violations with their counts."""

    bug: str | None
    rounds: int
    findings: dict[str, int]

    @property
    def is_right(self) -> bool:
        """A bug was found for the reason that it was planted for, and a control was not found."""
        if self.bug in CONTROLS:
            return not self.findings
        return BUGS[str(self.bug)].shows_as in self.findings

    @property
    def as_row(self) -> str:
        """A line of the table."""
        found = ", ".join(f"{name} {count}" for name, count in self.findings.items()) or "nothing"
        story = BUGS[str(self.bug)].story.splitlines()[0] if self.bug in BUGS else "No bug: the judge must stay green."
        return f"| {self.bug or 'none'} | {story} | {self.rounds} | {found}{'' if self.is_right else ' (WRONG)'} |"


async def prove(folder: Path, seed: int, bug: str | None, say: Callable[[str], None]) -> Proof:
    """A calm start, round 0, then rounds with this bug in every worker, until the judge is red or they are over."""
    plan = Plan(seed, MAX_ROUNDS, _IDS, bug, _SETTLE_WITHIN_S, calm_ids=_CALM_IDS)
    total = await run_world(folder / (bug or "none"), plan, range(1, MAX_ROUNDS + 1), say)
    return Proof(bug, total.rounds, dict(total.violations))


async def prove_all(folder: Path, seed: int, bugs: Iterable[str | None], say: Callable[[str], None]) -> list[Proof]:
    """One after the other, each told as a line of the table."""
    proofs = []
    for bug in bugs:
        proofs.append(await prove(folder, seed, bug, lambda _: None))
        say(proofs[-1].as_row)
    return proofs
