"""Rounds of faults under load, each with its verdict. A world serves some rounds, then a new one is built."""

import asyncio
import logging
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.schedule import FAULTS, RoundFaults, deal, run_lane
from tests.chaos.verdict import Verdict
from tests.chaos.world import World, build

#: Texts hang for up to that many rounds, some minutes; records behind them in their partition are read again at each
#: rebalance.
ROUNDS_PER_WORLD = 3
PER_S = 250.0
_PAUSE_S = (0.3, 1.5)
#: Enough for each partition to get some; when all is well they go through in seconds, after a last rebalance in more.
_FRESH, _FRESH_WITHIN_S = 40, 60.0
#: Figures that must not be 0, or the run proves nothing.
_MUST_HAPPEN = (
    *("workers_killed", "workers_frozen", "frozen_out", "rebalances", "redelivered", "accepted_by_gateway"),
    *("cut_off", "rounds_under_load"),
)
#: Least shares in a long run: the figure, the figure it is a part of, and the share.
_NOT_RARE = (
    ("rounds_under_load", "rounds", 0.8),
    ("frozen_out", "workers_frozen", 0.5),
    ("stopped_in_order", "workers_stopped", 0.5),
)
#: From that many rounds on every kind of fault must have happened, a torn table must have been noticed, and shares are
#: checked: of one or two stops, none may have been graceful by chance.
ROUNDS_FOR_ALL_FAULTS = 20
_IN_A_LONG_RUN = {*FAULTS, "shards_rebuilt"}
IN_FLIGHT_AT_A_KILL = 100
IN_FLIGHT = 300
_LOAD_WITHIN_S = 20.0


@dataclass
class Total:
    """Sums over all worlds."""

    rounds: int = 0
    figures: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    #: Calls in flight of each killed worker.
    in_flight_at_kills: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, world: World, verdict: Verdict, rounds: int) -> "Total":
        """Returns the sums of a world that has ended."""
        return cls(rounds, verdict.figures + world.happened, verdict.counts, world.fleet.in_flight_at_kills)

    def add(self, other: "Total") -> None:
        """Adds another world's sums."""
        self.rounds += other.rounds
        self.figures += other.figures
        self.violations += other.violations
        self.in_flight_at_kills += other.in_flight_at_kills

    @property
    def summary(self) -> str:
        """Returns the summary line. Kills and freezes are those of workers, brokers and Postgres."""
        figures = self.figures
        counted = {
            "rounds": self.rounds,
            "ids": figures["ids"],
            "kills": figures["workers_killed"] + figures["broker_killed"] + figures["postgres_killed"],
            "freezes": figures["workers_frozen"] + figures["kafka_frozen"] + figures["postgres_frozen"],
            "rebalances": figures["rebalances"],
            "redelivered": figures["redelivered"],
        }
        broken = ("missing", "invented", "corrupted", "duplicate_rows", "commits_past_unfinished")
        counted |= {name: self.violations[name] for name in broken}
        counted |= {name: figures[name] for name in ("calls", "distinct_texts", "cut_off")}
        return "chaos: " + " ".join(f"{name}={count}" for name, count in counted.items())

    @property
    def did_not_happen(self) -> list[str]:
        """Returns the names of faults that the run needed and did not have."""
        figures, is_long = self.figures, self.rounds >= ROUNDS_FOR_ALL_FAULTS
        wanted = {*_MUST_HAPPEN, *(_IN_A_LONG_RUN if is_long else ())}
        absent = sorted(name for name in wanted if not figures[name])
        for name, of, share in _NOT_RARE if is_long else ():
            if figures[name] < share * (whole := self.rounds if of == "rounds" else figures[of]):
                absent.append(f"{name} only {figures[name]} times, of {whole} {of}")
        most = max(self.in_flight_at_kills, default=0)
        if most < IN_FLIGHT_AT_A_KILL:
            absent.append(f"{IN_FLIGHT_AT_A_KILL} calls in flight at a kill (at most {most})")
        return absent


@dataclass(frozen=True)
class Plan:
    """The parameters of a run; `ids` is the least number of conversations a round."""

    seed: int
    rounds: int
    ids: int = 7_500
    bug: str | None = None
    settle_within_s: float = 150.0
    #: Conversations before the first fault of a world, which must end well by themselves.
    calm_ids: int = 0
    worlds_at_once: int = 1
    #: Of each round, in place of those that the seed deals.
    faults: RoundFaults | None = None

    def rounds_by_world(self) -> list[range]:
        """Numbers of rounds, from 1 on."""
        starts = range(1, self.rounds + 1, ROUNDS_PER_WORLD)
        return [range(start, min(start + ROUNDS_PER_WORLD, self.rounds + 1)) for start in starts]


def run_rounds(folder: Path, plan: Plan, say: Callable[[str], None]) -> Total:
    """Runs until all rounds are done or one fails, with `plan.worlds_at_once` worlds side by side, each a process.

    A round mostly waits, for sessions to time out and partitions to move, and two worlds fit on two cores. `say` must
    be picklable.
    """
    total, running = Total(), set[Future[Total]]()
    waiting = iter(plan.rounds_by_world())
    with side_by_side(plan.worlds_at_once) as worlds:
        while True:
            # One by one: an executor may begin what it was given even after a red verdict.
            while len(running) < plan.worlds_at_once and not total.violations and (rounds := next(waiting, None)):
                running.add(worlds.submit(_run_alone, folder, plan, rounds, say))
            if not running:
                return total
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for run in ended:
                total.add(run.result())


def side_by_side(worlds: int) -> ProcessPoolExecutor:
    """Each world in a process of its own, which ends with this one, however this one ends."""
    return ProcessPoolExecutor(worlds, multiprocessing.get_context("spawn"), _be_a_world)


def _be_a_world() -> None:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # brokers that do not answer are the point
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _run_alone(folder: Path, plan: Plan, rounds: Sequence[int], say: Callable[[str], None]) -> Total:
    return asyncio.run(run_world(folder, plan, rounds, say))


def _end_with_the_parent() -> None:
    """However it ends; everything that this process has started ends with it (streams.dev.local.process)."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a process of its own"
    parent.join()
    os._exit(1)


async def run_world(folder: Path, plan: Plan, rounds: Sequence[int], say: Callable[[str], None]) -> Total:
    """Runs these rounds in one world, until they are done or the verdict fails."""
    here = folder / f"world-of-round-{rounds[0]}"
    here.mkdir(parents=True)
    faults = [plan.faults] * rounds[-1] if plan.faults else deal(plan.seed, rounds[-1])
    async with build(here, plan.seed + rounds[0], plan.bug) as world:
        verdict, done = await _calm(world, plan), 0
        for number in rounds:
            if not verdict.is_green:
                break
            done, began_s = done + 1, time.monotonic()
            await _inject(world, faults[number - 1], random.Random(f"{plan.seed}:{number}"), plan.ids)
            verdict = await _judged(world, plan.settle_within_s, is_last=number == rounds[-1])
            _tell(number, verdict, faults[number - 1], time.monotonic() - began_s, say)
        return Total.of(world, verdict, done)


async def _calm(world: World, plan: Plan) -> Verdict:
    """Runs without any fault."""
    for _ in range(plan.calm_ids):
        world.feeder.post_next()
    return await world.settle(plan.settle_within_s, release=False)


async def _inject(world: World, faults: RoundFaults, source: random.Random, ids: int) -> None:
    """Runs one round of faults under load. When one lane fails, feeding ends too."""
    faults_over = asyncio.Event()
    feeding = asyncio.create_task(world.feeder.feed(PER_S, faults_over, ids))
    try:
        world.fleet.happened["rounds_under_load"] += await world.under_load(IN_FLIGHT, _LOAD_WITHIN_S)
        async with asyncio.TaskGroup() as lanes:
            for names, by_name in (
                (faults.of_workers, world.worker_faults.by_name),
                (faults.of_the_rest, world.infrastructure.by_name),
            ):
                lanes.create_task(run_lane(names, by_name, random.Random(source.random()), _PAUSE_S, world.note))
    except BaseException:
        feeding.cancel()
        raise
    faults_over.set()
    await feeding


async def _judged(world: World, within_s: float, *, is_last: bool) -> Verdict:
    """Returns the verdict; after a passing one, new conversations must be accepted and processed too."""
    verdict = await world.settle(within_s, release=is_last)
    if not verdict.is_green:
        return verdict
    fresh = {world.feeder.post_next() for _ in range(_FRESH)}
    verdict = await world.settle(_FRESH_WITHIN_S, release=is_last)
    for number in fresh - world.feeder.posted.confirmed:
        verdict.violation("refused_though_all_was_well", world.oracle.case(number).id)
    return verdict


def _tell(number: int, verdict: Verdict, faults: RoundFaults, took_s: float, say: Callable[[str], None]) -> None:
    figures = verdict.figures
    say(
        f"round {number}: {'green' if verdict.is_green else 'RED'} after {took_s:.0f} s ({faults}); so far in this "
        f"world: ids={figures['ids']} calls={figures['calls']} distinct_texts={figures['distinct_texts']} "
        f"cut_off={figures['cut_off']} redelivered={figures['redelivered']} rebalances={figures['rebalances']}"
    )
    for line in verdict.lines():
        say(f"  {line}")
