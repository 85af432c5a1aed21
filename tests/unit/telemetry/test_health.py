"""Health checks: together, each with a deadline, not more often than useful, and without secrets."""

import asyncio

from schemas.errors import Retryable
from streams.telemetry.health import Health
from tests.fakes.gateway_parts import HandClock


async def passes() -> None:
    return


async def hangs() -> None:
    await asyncio.Event().wait()


async def leaks() -> None:
    raise ValueError("postgresql://user:password@host")


async def explains() -> None:
    raise Retryable("the broker does not answer")


async def test_each_check_has_its_own_finding() -> None:
    """Only our own errors are quoted; others show their type, which holds no secret."""
    report = await Health({"a": passes, "b": leaks, "c": explains, "d": hangs}, timeout_s=0.01).report()
    assert report.checks == {
        "a": "ok",
        "b": "ValueError",
        "c": "the broker does not answer",
        "d": "no answer within 0.01 s",
    }
    assert report.failing == ["b", "c", "d"]
    assert report.only(["a"]).is_ok


async def test_many_questions_become_one() -> None:
    """Probes within a second, even at the same moment, ask the dependency once."""
    asked = 0

    async def counts() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)

    clock = HandClock()
    health = Health({"a": counts}, clock=clock)
    await asyncio.gather(*(health.report() for _ in range(50)))
    assert asked == 1
    clock.now_s += 1.0
    await health.report()
    assert asked == 2


async def test_a_cancelled_question_leaves_the_next_one_working() -> None:
    """A probe that gives up early does not block the others."""
    health = Health({"a": hangs}, timeout_s=0.05)
    question = asyncio.create_task(health.report())
    await asyncio.sleep(0)
    question.cancel()
    await asyncio.wait([question])
    assert (await health.report()).failing == ["a"]
