"""Parts start in order and stop in time; a failure ends the worker, a halt does not."""

import asyncio

import pytest
from aiokafka.errors import NodeNotReadyError

from schemas.errors import Fatal, Retryable
from streams.worker import lifecycle
from streams.worker.lifecycle import Lifecycle
from streams.worker.provider_check import ProviderCheck
from streams.worker.timings import Timings

HALT = Fatal("too many records became dead letters", "100 in a row", "remove the cause, then restart the worker")


@pytest.fixture(autouse=True)
def deadlines(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those that would end the tests' process."""
    deadlines: list[float] = []
    monkeypatch.setattr(lifecycle, "end_process_within", deadlines.append)
    return deadlines


class APart:
    """Fails its first starts with the given errors; may hang when it is stopped."""

    def __init__(self, journal: list[str], name: str, *errors: Exception, hangs: bool = False) -> None:
        self.journal, self.name, self.errors, self.hangs = journal, name, list(errors), hangs

    async def start(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.journal.append(f"start {self.name}")

    async def stop(self) -> None:
        self.journal.append(f"stop {self.name}")
        if self.hangs:
            await asyncio.Event().wait()


def a_life(*parts: APart) -> Lifecycle:
    life = Lifecycle(Timings(part_stop_s=1))
    life.parts = parts
    return life


async def test_a_start_waits_for_servers_that_are_not_there_yet() -> None:
    """Parts start in order: later ones may need earlier ones."""
    journal: list[str] = []
    errors = [NodeNotReadyError(), OSError(), Retryable("Postgres: ConnectionRefusedError")]
    await a_life(APart(journal, "broker", *errors), APart(journal, "rows")).start()
    assert journal == ["start broker", "start rows"]


async def test_a_start_waits_as_long_as_the_failure_asks() -> None:
    """A key that the provider does not take is tried again once a minute; readiness says why meanwhile."""
    wrong = Retryable("check XAI_API_KEY: the provider answered with status 400", retry_after_s=60)
    asked_at_s: list[float] = []

    async def ask() -> None:
        asked_at_s.append(asyncio.get_running_loop().time())
        if len(asked_at_s) < 3:
            raise wrong

    check = ProviderCheck(ask)
    with pytest.raises(Retryable, match="not asked yet"):
        await check.check_passed()
    life = Lifecycle(Timings(part_stop_s=1))
    life.parts = [check]
    starting = asyncio.create_task(life.start())
    await asyncio.sleep(1)
    with pytest.raises(Retryable, match="XAI_API_KEY"):
        await check.check_passed()
    await starting
    await check.check_passed()
    assert asked_at_s == [0, 60, 120]


async def test_a_start_that_cannot_succeed_ends_at_once_and_stops_what_was_started() -> None:
    """Nothing after it is started."""
    journal: list[str] = []
    life = a_life(APart(journal, "first"), APart(journal, "second", HALT), APart(journal, "third"))
    with pytest.raises(Fatal):
        await life.start()
    await life.stop()
    assert journal == ["start first", "stop first"]


async def test_parts_that_hang_do_not_keep_others_from_stopping() -> None:
    """All stop at once: one after the other would take more than a stop has."""
    journal: list[str] = []
    life = a_life(*(APart(journal, name, hangs=name != "b") for name in "abc"))
    await life.start()
    await life.stop()
    assert journal[3:] == ["stop c", "stop b", "stop a"]
    assert asyncio.get_running_loop().time() == 1


async def test_a_loop_that_fails_ends_the_worker() -> None:
    """No other part would notice; running loops are cancelled by the stop."""
    life = a_life()

    async def fail() -> None:
        raise ZeroDivisionError

    life.keep_running(asyncio.sleep(3_600))
    life.keep_running(fail())
    await life.failed.wait()
    assert isinstance(life.failure, ZeroDivisionError)
    await life.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_first_failure_counts(deadlines: list[float]) -> None:
    """Those that follow are its consequences. From then on the process ends within a bounded time."""
    life = a_life()
    life.fail(HALT)
    life.fail(ZeroDivisionError())
    assert (life.failure, deadlines) == (HALT, [Timings().stop_s])


async def test_a_drain_ends_the_work_within_a_bounded_time(deadlines: list[float]) -> None:
    """The last resort is set before the work is asked to end."""
    life, seen = a_life(), []

    async def on_drain() -> None:
        seen.extend(deadlines)

    await life.drain()
    life.on_drain = on_drain
    await life.drain()
    assert seen == [Timings().stop_s] * 2


async def test_a_halted_worker_lives_on_and_is_not_ready() -> None:
    """A supervisor would restart an ended process, which would write another hundred dead letters. The check says why,
    and what to do."""
    life = a_life()
    await life.check_not_halted()
    life.halt(HALT)
    assert not life.failed.is_set()
    with pytest.raises(Retryable) as refused:
        await life.check_not_halted()
    assert str(refused.value) == f"{HALT.what}: {HALT.why}; {HALT.hint}"


async def test_a_halted_worker_fails_when_it_is_stopped() -> None:
    """The exit code says so; a failure that came first still counts, and one that comes later as well."""
    life = a_life()
    life.halt(HALT)
    assert life.failure is HALT
    later = ZeroDivisionError()
    life.fail(later)
    life.halt(HALT)
    assert life.failure is later
