"""One run: a worker that ends at a crash point, a check of the durable state, a new worker, a check of the outcome."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.kafka import Topics
from streams.dev.local.ports import free_port
from streams.dev.standin.faults import FaultKind, FaultPlan, Marker
from streams.dev.standin.server import StandinConfig, serving
from tests.crash.evidence import Evidence, committed_offsets, gather
from tests.crash.judge import Calls, Judge, repeated
from tests.crash.lives import Life, Lives
from tests.crash.points import EXIT_CODE
from tests.crash.workload import PARTITIONS, REFUSED, Item, occurrences, workload
from tests.support.standin_answers import StandinAnswers
from tests.support.topics import topics_with

#: Few at once and slow enough for several commits.
MAX_IN_FLIGHT = 4
STANDIN = StandinConfig(
    latency_min_s=0.05, latency_max_s=0.4, faults=FaultPlan(markers=(Marker(REFUSED, FaultKind.VIOLATION_403),))
)
CRASH_WITHIN_S = 90
#: The dead member's session blocks the group for 10 s.
DONE_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Stage:
    """What all runs share; `starting` bounds how many workers start at once."""

    lives: Lives
    admin: AIOKafkaAdminClient
    producer: AIOKafkaProducer
    log: AIOKafkaConsumer
    http: aiohttp.ClientSession
    settings: Mapping[str, str]
    folder: Path
    insights: StandinAnswers
    starting: asyncio.Semaphore


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one run; it is right when `wrong` is empty."""

    point: str
    run: str
    nth: int
    crashed: bool
    wrong: list[str]
    extra_calls: int = 0
    repeated_events: int = 0
    differing: frozenset[str] = frozenset()


async def crash_once(stage: Stage, point: str, run: str, source: random.Random) -> Verdict:
    """The outcome of a crash at a random occurrence of the point."""
    topics = topics_with(f"{run}.")
    items, folder = workload(run, source), stage.folder / run
    nth = source.randint(1, occurrences(items)[point])
    folder.mkdir()
    await _prepare(stage, topics, items)
    async with serving(STANDIN) as address:
        settings = {
            **stage.settings,
            "TOPIC_PREFIX": topics.prefix,
            "GROK_BASE_URL": f"{address}/v1",
            "DATA_DIR": str(folder / "data"),
        }
        crash = _Crash(stage, run, topics, items, settings)
        async with stage.starting:
            first = stage.lives.start(folder, settings, log=folder / "first.log", point=point, nth=nth)
            code = await _end_of(first, CRASH_WITHIN_S)
        if code != EXIT_CODE:
            return Verdict(point, run, nth, False, [f"ended with {code} instead of crashing, see {folder}"])
        return await crash.verdict(point, nth)


class _Crash:
    """The checks after a crash."""

    def __init__(self, stage: Stage, run: str, topics: Topics, items: list[Item], settings: Mapping[str, str]) -> None:
        self._stage = stage
        self._run = run
        self._topics = topics
        self._items = items
        self._settings = settings
        self._judge = Judge(items, stage.insights)

    async def verdict(self, point: str, nth: int) -> Verdict:
        calls_before = await self._calls()
        at_crash = await self._evidence()
        kept = len({record.key for record in at_crash.changelog})
        wrong = [f"at the crash: {fault}" for fault in self._judge.offsets(at_crash)]
        wrong += await self._live_again()
        at_last = await self._evidence()
        calls = Calls(self._distinct, calls_before - kept, await self._calls())
        wrong += self._judge.offsets(at_last) + self._judge.outcome(at_last, calls)
        if not wrong:  # many runs share the broker; the topics of a failed one are kept
            await self._stage.admin.delete_topics([*self._topics.messages, self._topics.answers_changelog])
        extra = calls.in_all - calls.distinct
        return Verdict(point, self._run, nth, True, wrong, extra, *repeated(at_last))

    @property
    def _distinct(self) -> int:
        return len({item.text for item in self._items if item.is_asked})

    async def _live_again(self) -> list[str]:
        """A worker with the same folder, until every offset is committed; then it is killed too."""
        folder, port = self._stage.folder / self._run, free_port()
        settings = {**self._settings, "WORKER_METRICS_PORT": str(port)}
        async with self._stage.starting:
            life = self._stage.lives.start(folder, settings, log=folder / "second.log")
            await asyncio.wait([life.ended], timeout=1.0)  # the costly part of a start, let be by the other starts
        try:
            async with asyncio.timeout(DONE_WITHIN_S):
                while not await self._is_done():
                    if life.ended.done():
                        return [f"the second life ended with {life.ended.result()}, see {folder}"]
                    await asyncio.sleep(0.5)
        except TimeoutError:
            return [f"not done within {DONE_WITHIN_S} s, see {folder}", await self._what_is_left(port)]
        finally:
            await life.kill()
        return []

    async def _is_done(self) -> bool:
        committed = await committed_offsets(self._topics, self._stage.admin)
        ends = await self._stage.log.end_offsets(list(committed))
        return all(committed[at] >= end for at, end in ends.items())

    async def _what_is_left(self, port: int) -> str:
        """Committed and end offsets, and whether anything is in flight: the first facts for debugging."""
        committed = await committed_offsets(self._topics, self._stage.admin)
        ends = await self._stage.log.end_offsets(list(committed))
        left = {f"{at.topic}/{at.partition}": (committed[at], ends[at]) for at in ends if committed[at] < ends[at]}
        async with self._stage.http.get(f"http://127.0.0.1:{port}/metrics") as response:
            lines = (await response.text()).splitlines()
        return f"left: {left}; {[line for line in lines if line.startswith('conversations_in_flight ')]}"

    async def _calls(self) -> int:
        """Returns the calls so far, once none is in flight."""
        async with asyncio.timeout(30):
            while True:
                url = self._settings["GROK_BASE_URL"].removesuffix("v1") + "control/stats"
                async with self._stage.http.get(url) as response:
                    stats = await response.json()
                if stats["in_flight"] == 0:
                    return int(stats["calls"])
                await asyncio.sleep(0.1)

    async def _evidence(self) -> Evidence:
        settings = self._settings
        return await gather(
            self._run, self._topics, settings["KAFKA_BOOTSTRAP_SERVERS"], self._stage.admin, settings["DATABASE_URL"]
        )


async def _prepare(stage: Stage, topics: Topics, items: list[Item]) -> None:
    """The run's topics, with its conversations in them."""
    wanted = [NewTopic(topic, PARTITIONS, 1) for topic in topics.messages]
    wanted.append(NewTopic(topics.answers_changelog, PARTITIONS, 1, topic_configs={"cleanup.policy": "compact"}))
    made = await stage.admin.create_topics(wanted)
    assert not any(code for _, code, *_ in made.topic_errors), made
    sent = [
        await stage.producer.send(topics.conversations, item.value, key=item.id.encode(), partition=item.partition)
        for item in items
    ]
    await asyncio.gather(*sent)


async def _end_of(life: Life, within_s: float) -> int | None:
    """The exit code; None when it had to be killed."""
    done, _ = await asyncio.wait([life.ended], timeout=within_s)
    if not done:
        await life.kill()
        return None
    return life.ended.result()
