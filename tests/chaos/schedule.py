"""The faults of each round, dealt from shuffled decks, so that rare ones occur as often as others."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

Fault = Callable[[random.Random], Awaitable[None]]

KILLS = (
    *("killed", "killed_and_table_lost", "killed_and_table_torn", "killed_in_recovery"),
    *("all_killed", "successor_killed_while_frozen"),
)
WORKER_FAULTS = (*KILLS, "frozen", "stopped", "stopped", "churn", "churn")
#: Kills and freezes of what workers depend on. Frozen brokers take half a minute, so they come half as often.
HARD = (*("postgres_killed", "postgres_frozen", "broker_killed") * 2, "kafka_frozen")
SOFT = ("postgres_slow", "postgres_cut", "broker_restarted", "grok_errors", "grok_resets", "grok_slow", "grok_bad")
FAULTS = frozenset((*WORKER_FAULTS, *HARD, *SOFT))


@dataclass(frozen=True)
class RoundFaults:
    """Two lanes that run side by side; at least three of the faults are kills or freezes."""

    of_workers: tuple[str, ...]
    of_the_rest: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.of_workers)} | {', '.join(self.of_the_rest)}"


def deal(seed: int, rounds: int) -> list[RoundFaults]:
    """Returns the faults of all rounds of a run."""
    source = random.Random(seed)
    kills, workers = _deck(KILLS, source), _deck(WORKER_FAULTS, source)
    hard, soft = _deck(HARD, source), _deck(SOFT, source)
    dealt = []
    for _ in range(rounds):
        of_workers, of_the_rest = [next(kills), "frozen", next(workers)], [next(hard), next(soft)]
        source.shuffle(of_workers)
        source.shuffle(of_the_rest)
        dealt.append(RoundFaults(tuple(of_workers), tuple(of_the_rest)))
    return dealt


def _deck(cards: tuple[str, ...], source: random.Random) -> Iterator[str]:
    while True:
        shuffled = list(cards)
        source.shuffle(shuffled)
        yield from shuffled


async def run_lane(
    names: tuple[str, ...],
    faults: Mapping[str, Fault],
    source: random.Random,
    pause_s: tuple[float, float],
    tell: Callable[[str], None],
) -> None:
    """Runs one fault after the other."""
    for name in names:
        await asyncio.sleep(source.uniform(*pause_s))
        tell(f"{name} begins")
        await faults[name](source)
        tell(f"{name} is over")
