"""The proof of the harness: the judge must fail every planted bug, and pass a worker without one."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.planted_bugs import BUGS
from tests.chaos.rounds import Plan, run_world, side_by_side

MAX_ROUNDS = 8
CONTROL_ROUNDS = 3
_IDS = 2_500
_CALM_IDS = 400
#: What is missing by then will not come: with a bug, most rounds end so.
_SETTLE_WITHIN_S = 120.0


@dataclass(frozen=True)
class Proof:
    """The result for one bug, or for the control without one; `findings` are the violations with their counts."""

    bug: str | None
    rounds: int
    findings: dict[str, int]

    @property
    def is_right(self) -> bool:
        """Whether the bug shows as the expected violation, and the control shows none."""
        return BUGS[self.bug].shows_as in self.findings if self.bug else not self.findings

    @property
    def story(self) -> str:
        """What the developer did."""
        return BUGS[self.bug].story.splitlines()[0] if self.bug else "No bug: the judge must stay green."

    @property
    def as_row(self) -> str:
        """A line of a table."""
        found = ", ".join(f"{name} {count}" for name, count in self.findings.items()) or "nothing"
        judged = "" if self.is_right else " (WRONG)"
        return f"| {self.bug or 'none'} | {self.story} | {self.rounds} | {found}{judged} |"


async def prove(folder: Path, seed: int, bug: str | None, say: Callable[[str], None]) -> Proof:
    """A calm start, round 0, then rounds with this bug in every worker, until the judge is red or they are over."""
    rounds = MAX_ROUNDS if bug else CONTROL_ROUNDS
    faults = BUGS[bug].faults if bug else None
    plan = Plan(seed, rounds, _IDS, bug, _SETTLE_WITHIN_S, calm_ids=_CALM_IDS, faults=faults)
    total = await run_world(folder / (bug or "none"), plan, range(1, rounds + 1), say)
    return Proof(bug, total.rounds, dict(total.violations))


def prove_all(folder: Path, seed: int, bugs: Iterable[str | None], worlds_at_once: int) -> Iterator[Proof]:
    """Yields each proof as soon as it is there; `worlds_at_once` worlds side by side."""
    with side_by_side(worlds_at_once) as worlds:
        for proven in as_completed([worlds.submit(_prove_alone, folder, seed, bug) for bug in bugs]):
            yield proven.result()


def _prove_alone(folder: Path, seed: int, bug: str | None) -> Proof:
    return asyncio.run(prove(folder, seed, bug, lambda _: None))
