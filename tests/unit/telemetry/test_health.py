"""Health checks: run together, each with a deadline, no more often than useful, and without secrets."""

import asyncio

from structlog.testing import capture_logs

from schemas.errors import Retryable
from streams.telemetry.health import CHECK_TIMEOUT_S, FRESH_S, Health
from tests.fakes.gateway import ManualClock


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
    assert report == {
        "a": "ok",
        "b": "ValueError",
        "c": "the broker does not answer",
        "d": "no answer within 0.01 s",
    }


async def test_many_questions_become_one() -> None:
    """Probes within a second, even at the same moment, ask the dependency once."""
    asked = 0

    async def counts() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)

    clock = ManualClock()
    health = Health({"a": counts}, clock=clock)
    await asyncio.gather(*(health.report() for _ in range(50)))
    assert asked == 1
    clock.now_s += 0.5
    await health.report()
    assert asked == 2


async def test_a_cancelled_question_leaves_the_next_one_working() -> None:
    """A probe that gives up early does not block the others."""
    health = Health({"a": hangs}, timeout_s=0.05)
    question = asyncio.create_task(health.report())
    await asyncio.sleep(0)
    question.cancel()
    await asyncio.wait([question])
    assert await health.report() == {"a": "no answer within 0.05 s"}


async def test_a_check_that_cannot_be_cancelled_is_not_waited_for() -> None:
    """As a query on a frozen server: giving it up may take as long as the server is frozen."""
    thawed = asyncio.Event()

    async def ends_late() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await thawed.wait()

    health = Health({"a": ends_late}, timeout_s=0.01)
    async with asyncio.timeout(5):
        assert await health.report() == {"a": "no answer within 0.01 s"}
    thawed.set()


async def test_one_that_hangs_holds_up_only_those_who_name_it() -> None:
    """Readiness does not wait for the lag, which only /health reports."""
    health = Health({"a": passes, "b": hangs}, timeout_s=60)
    everything = asyncio.create_task(health.report())
    async with asyncio.timeout(5):
        assert await health.report(["a"]) == {"a": "ok"}
    everything.cancel()


def test_a_finding_shows_within_three_seconds() -> None:
    """A result is reused for FRESH_S, and the next check is given up after CHECK_TIMEOUT_S."""
    assert CHECK_TIMEOUT_S + FRESH_S <= 2.5  # half a second is for the probe's own interval and a busy machine


async def test_a_check_that_was_cancelled_is_reported_as_cancelled() -> None:
    """It is not reported as one that did not answer in time."""

    async def is_cancelled() -> None:
        raise asyncio.CancelledError

    assert await Health({"a": is_cancelled}).report() == {"a": "the check was cancelled"}


async def test_the_log_has_failures_after_the_start_and_their_end() -> None:
    """The start itself logs what it waits for."""
    states = iter([explains, passes, explains, explains, passes, passes])
    clock = ManualClock()
    health = Health({"a": lambda: next(states)()}, clock=clock)
    with capture_logs() as logged:
        for _ in range(6):
            clock.now_s += FRESH_S
            await health.report()
    changes = [(line["event"], line["state"]) for line in logged]
    assert changes == [("health_changed", "the broker does not answer"), ("health_changed", "ok")]
