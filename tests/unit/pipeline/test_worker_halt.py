"""A halted worker: it lives, is not ready and says why, and ends as failed."""

from typing import cast

import pytest
from streams.pipeline.assignment import Assignment
from streams.pipeline.worker import Worker

from schemas.errors import Fatal, Retryable
from streams.kafka.log_reader import LogReader
from tests.support.topics import TOPICS

FATAL = Fatal("too many records died", "100 in a row", "mend the cause, then restart the worker")


async def test_a_worker_that_was_not_halted_says_nothing() -> None:
    """The check passes."""
    worker = Worker([], cast(LogReader, None), TOPICS, Assignment())
    await worker.check_not_halted()


async def test_a_halted_worker_is_not_ready_and_tells_the_way_out() -> None:
    """In words that fit on one line of a probe's answer."""
    worker = Worker([], cast(LogReader, None), TOPICS, Assignment())
    worker.halt(FATAL)
    with pytest.raises(Retryable) as told:
        await worker.check_not_halted()
    assert str(told.value) == "too many records died: 100 in a row; mend the cause, then restart the worker"


def test_a_halted_worker_goes_on_living_and_fails_when_told_to_stop() -> None:
    """A supervisor that restarts what ended would drain another hundred; the exit code still says that it failed."""
    assignment = Assignment()
    worker = Worker([], cast(LogReader, None), TOPICS, assignment)
    worker.halt(FATAL)
    assert (worker.failed.is_set(), worker.failure) == (False, FATAL)
    assert (assignment.is_halted, assignment.is_open) == (True, False)


def test_halted_is_for_good() -> None:
    """Whatever is assigned later."""
    assignment = Assignment()
    assignment.halt()
    assignment.reopen()
    assert not assignment.is_open
