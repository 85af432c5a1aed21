"""Faust's consumer without its read positions, and without its handling of inputs that it never reads."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
)
from faust.types import TP
from structlog.testing import capture_logs

from schemas.errors import Fatal
from streams.engine.app import Lifecycle, WorkerApp
from streams.engine.consumer import MemberConsumer
from tests.support.topics import TOPICS

CHANGELOG, INPUT = TP(TOPICS.answers_changelog, 0), TP(TOPICS.conversations, 0)


class Life:
    """Keeps what ends the worker."""

    def __init__(self) -> None:
        self.failures: list[Fatal] = []

    def fail(self, error: Fatal) -> None:
        self.failures.append(error)


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def consumer(life: Life, tmp_path: Path) -> Iterator[MemberConsumer]:
    app = WorkerApp(
        cast(Lifecycle, life),
        TOPICS,
        lambda partitions: asyncio.sleep(0, dict.fromkeys(partitions, 7)),
        broker=["kafka://127.0.0.1:1"],
        broker_session_timeout=10.0,
        datadir=tmp_path,
    )
    consumer = app.consumer
    assert isinstance(consumer, MemberConsumer)
    yield consumer
    consumer._thread.thread_loop.close()  # of a thread that is not started here


async def test_no_read_position_is_remembered(consumer: MemberConsumer) -> None:
    """Faust drops records below them, and a rebalance leaves stale ones behind: recovery would never end."""
    consumer._read_offset[CHANGELOG] = 5
    consumer._read_offset.update({CHANGELOG: 6})
    assert consumer._read_offset[CHANGELOG] is None


async def test_the_ends_of_changelogs_are_the_logs_own(consumer: MemberConsumer) -> None:
    """Tansu answers Faust's question with a lower end."""
    assert await consumer.highwaters(CHANGELOG) == {CHANGELOG: 7}


async def test_an_input_that_faust_does_not_read_is_not_an_error(consumer: MemberConsumer) -> None:
    """Faust asks no broker for its start offset, and logs nothing every few seconds."""
    await consumer.perform_seek()
    with capture_logs() as logs:
        consumer.verify_event_path(1_000.0, INPUT)
    assert logs == []


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (InvalidSessionTimeoutError(), "set KAFKA_SESSION_TIMEOUT_S, which is 10, to a value from "),
        (InconsistentGroupProtocolError(), "another program uses this group: set CONSUMER_GROUP"),
        (GroupAuthorizationFailedError("group"), "grant this user the right to read with this group"),
        (KafkaError("UnknownError()"), "the log of the brokers may say more"),
    ],
)
async def test_a_join_that_is_refused_ends_the_worker_with_what_to_do(
    consumer: MemberConsumer, life: Life, error: KafkaError, hint: str
) -> None:
    """Each cause has its own remedy."""
    cast(WorkerApp, consumer.app).fail_to_join(error)
    [failure] = life.failures
    assert failure.why.startswith(f"{TOPICS.consumer_group}: {type(error).__name__}")
    assert failure.hint.startswith(hint)
