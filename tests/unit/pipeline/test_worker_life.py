"""An assignment that cannot begin ends the worker, and parts that hang do not keep a stop from its end."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest
from aiokafka.errors import NodeNotReadyError
from streams.pipeline import worker as worker_module
from streams.pipeline.analyst_app import AnalystApp
from streams.pipeline.assignment import Assignment
from streams.pipeline.consumer_thread import LEAVE_WITHIN_S
from streams.pipeline.deadline import end_process_within
from streams.pipeline.worker import (
    DRAIN_S,
    LAST_COMMIT_S,
    PART_STOPS_WITHIN_S,
    STOP_DRAIN_S,
    STOP_WITHIN_S,
    Worker,
)

from agents.analyse import KEEP_S
from agents.limits.retry import Backoff
from schemas.errors import Fatal
from streams.kafka.log_reader import LogReader
from tests.support.topics import TOPICS


@pytest.fixture(autouse=True)
def _no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the tests' process."""
    assert worker_module.end_process_within is end_process_within
    monkeypatch.setattr(worker_module, "end_process_within", lambda _: None)


class BrokenStore:
    """What rocksdict raises of a full disk or of another process's lock is a bare Exception."""

    def begin_runs_anew(self) -> None:
        raise Exception("IO error: lock hold by current process")


async def test_an_assignment_that_cannot_begin_ends_the_worker() -> None:
    """aiokafka would log the error and keep a member that holds its partitions and works on nothing."""
    assignment = Assignment()
    worker = Worker([], cast(LogReader, None), TOPICS, assignment)
    worker.app = cast(AnalystApp, type("App", (), {"answers": type("Table", (), {"store": BrokenStore()})}))
    await assignment.drain(0)
    await worker.before_recovery(set())
    assert isinstance(worker.failure, Fatal)
    assert (worker.failure.what, worker.failure.why) == ("the assignment cannot begin", "Exception")
    assert (worker.failed.is_set(), assignment.is_open) == (True, False)


class LogThatIsSoonThere:
    """Its broker is down when it is asked first."""

    def __init__(self) -> None:
        self.asked = 0

    async def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        self.asked += 1
        if self.asked == 1:
            raise NodeNotReadyError
        return dict.fromkeys(topics, 3)

    async def check(self) -> None: ...


async def test_a_start_waits_for_the_broker_that_knows_the_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several may be down just then; ending the process would only have somebody start it again."""
    monkeypatch.setattr(worker_module, "START_BACKOFF", Backoff(base_s=0.001, cap_s=0.001))
    log = LogThatIsSoonThere()
    worker = Worker([], cast(LogReader, log), TOPICS, Assignment())
    app = type("App", (), {"consumer_generation_id": 1, "in_recovery": False, "rebalancing": False})
    await worker.start(cast(AnalystApp, app))
    await worker.stop()
    assert (worker.partitions, log.asked) == (3, 2)


class APart:
    """Stops when it may; tells when it was told to."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.may_stop = asyncio.Event()
        self.is_told = False
        if not hangs:
            self.may_stop.set()

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.is_told = True
        await self.may_stop.wait()


async def test_all_parts_are_told_to_stop_though_each_of_them_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other they would take more than the stop has."""
    monkeypatch.setattr(worker_module, "PART_STOPS_WITHIN_S", 0.05)
    parts: list[Any] = [APart(hangs=True), APart(), APart(hangs=True)]
    worker = Worker(parts, cast(LogReader, None), TOPICS, Assignment())
    worker._started.extend(parts)
    await worker.stop()
    assert [part.is_told for part in parts] == [True, True, True]


def test_a_stop_leaves_calls_the_time_that_they_take_and_ends_before_its_last_resort() -> None:
    """Calls to Grok take 2 to 5 s; all that follows takes its whole time when brokers are frozen."""
    assert 5.0 <= STOP_DRAIN_S < DRAIN_S
    faust_s = 0.5
    whole_s = STOP_DRAIN_S + KEEP_S + LAST_COMMIT_S + LEAVE_WITHIN_S + faust_s + PART_STOPS_WITHIN_S
    assert whole_s <= STOP_WITHIN_S - 0.5
