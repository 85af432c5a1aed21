"""The process ends after each single step, on Apache Kafka with a real Postgres; the outcome is always right."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from streams.dev.local.brokers import Kafka
from tests.crash.lives import Lives
from tests.crash.points import POINTS
from tests.crash.run import MAX_IN_FLIGHT, Stage, Verdict, crash_once
from tests.support.standin_answers import StandinAnswers

#: The long form is GROK_INSIGHTS_CRASHES=10. A printed seed makes the same conversations and crashes at the same steps.
CRASHES = int(os.environ.get("GROK_INSIGHTS_CRASHES", "2"))
SEED = int(os.environ.get("GROK_INSIGHTS_CRASH_SEED") or random.randrange(2**32))
#: Runs mostly wait, for the session of the dead member.
AT_ONCE = 16
STARTS_AT_ONCE = 3


@asynccontextmanager
async def staged(bootstrap_servers: str, database_url: str, folder: Path) -> AsyncIterator[Stage]:
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "DATABASE_URL": database_url,
        "ANALYSER": "grok",
        "GROK_MODEL": "standin",
        "XAI_API_KEY": "test-key",
        "MAX_IN_FLIGHT": str(MAX_IN_FLIGHT),
        "WORKER_METRICS_PORT": "0",
    }
    async with AsyncExitStack() as stack:
        lives = await stack.enter_async_context(Lives(folder / "zygote.log"))
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        await admin.start()
        stack.push_async_callback(admin.close)
        producer = await stack.enter_async_context(AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all"))
        log = await stack.enter_async_context(AIOKafkaConsumer(bootstrap_servers=bootstrap_servers))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Stage(
            lives, admin, producer, log, http, settings, folder, StandinAnswers(), asyncio.Semaphore(STARTS_AT_ONCE)
        )


async def crash_everywhere(stage: Stage) -> list[Verdict]:
    """CRASHES runs for each point."""
    free = asyncio.Semaphore(AT_ONCE)

    async def run(point: str, number: int) -> Verdict:
        async with free:
            return await crash_once(stage, point, f"{point}-{number}", random.Random(f"{SEED}/{point}/{number}"))

    # When one run fails, the others are over before the lives end that they wait for.
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(run(point, number)) for number in range(CRASHES) for point in POINTS]
    return [each.result() for each in runs]


def table(verdicts: Sequence[Verdict]) -> str:
    """A line for each point."""
    lines = ["point         runs crashed right  calls again events again"]
    for point, step in POINTS.items():
        mine = [verdict for verdict in verdicts if verdict.point == point]
        crashed, right = sum(verdict.crashed for verdict in mine), sum(not verdict.wrong for verdict in mine)
        calls, events = sum(verdict.extra_calls for verdict in mine), sum(verdict.repeated_events for verdict in mine)
        lines.append(f"{point:<12} {len(mine):>5} {crashed:>7} {right:>5} {calls:>12} {events:>12}  {step.what}")
    differing = sorted({name for verdict in verdicts for name in verdict.differing})
    return "\n".join([*lines, f"copies of an event differ in: {', '.join(differing)}"])


@pytest.mark.kafka
@pytest.mark.timeout(180 + 60 * CRASHES)
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_the_outcome_is_right_wherever_the_process_ends(broker: Kafka, database_url: str, tmp_path: Path) -> None:
    """After a restart there is one right row or dead letter each, no event that contradicts it, and no text is paid for
    twice, except for calls in flight; no offset ever passed an unfinished record. A run without its crash fails."""
    print(f"GROK_INSIGHTS_CRASH_SEED={SEED}")
    async with staged(broker.bootstrap_servers, database_url, tmp_path) as stage:
        verdicts = await crash_everywhere(stage)
    print(table(verdicts))
    assert [(verdict.run, verdict.nth, verdict.wrong) for verdict in verdicts if verdict.wrong] == []
    assert all(verdict.crashed for verdict in verdicts)
