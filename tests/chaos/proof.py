"""The harness proven: with each planted bug the judge must turn red, and the table tells after how many rounds."""

import asyncio
import inspect
from collections.abc import Callable, Iterable
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.planted_bugs import BUGS, HARMLESS
from tests.chaos.rounds import Plan, run_world, side_by_side

MAX_ROUNDS = 8
CONTROL_ROUNDS = 3
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
        judged = "" if self.is_right else " (WRONG)"
        return f"| {self.bug or 'none'} | {_story(self.bug)} | {self.rounds} | {found}{judged} |"


def _story(bug: str | None) -> str:
    if bug is None:
        return "No bug: the judge must stay green."
    told = BUGS[bug].story if bug in BUGS else inspect.getdoc(HARMLESS[bug]) or ""
    return told.splitlines()[0]


async def prove(folder: Path, seed: int, bug: str | None, say: Callable[[str], None]) -> Proof:
    """A calm start, round 0, then rounds with this bug in every worker, until the judge is red or they are over."""
    rounds = CONTROL_ROUNDS if bug in CONTROLS else MAX_ROUNDS
    faults = BUGS[str(bug)].faults if bug in BUGS else None
    plan = Plan(seed, rounds, _IDS, bug, _SETTLE_WITHIN_S, calm_ids=_CALM_IDS, faults=faults)
    total = await run_world(folder / (bug or "none"), plan, range(1, rounds + 1), say)
    return Proof(bug, total.rounds, dict(total.violations))


def prove_all(
    folder: Path, seed: int, bugs: Iterable[str | None], worlds_at_once: int, say: Callable[[str], None]
) -> list[Proof]:
    """Each told as a line of the table, as soon as it is there."""
    proofs = []
    with side_by_side(worlds_at_once) as worlds:
        for proven in as_completed([worlds.submit(_prove_alone, folder, seed, bug) for bug in bugs]):
            proofs.append(proven.result())
            say(proofs[-1].as_row)
    return proofs


def _prove_alone(folder: Path, seed: int, bug: str | None) -> Proof:
    return asyncio.run(prove(folder, seed, bug, lambda _: None))
