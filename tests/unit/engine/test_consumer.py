"""Faust's consumer without its read positions, and without its handling of inputs that it never reads."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from faust.types import TP
from structlog.testing import capture_logs

from streams.engine.app import Lifecycle, WorkerApp
from streams.engine.consumer import MemberConsumer
from tests.support.topics import TOPICS

CHANGELOG, INPUT = TP(TOPICS.answers_changelog, 0), TP(TOPICS.conversations, 0)


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator[MemberConsumer]:
    app = WorkerApp(
        cast(Lifecycle, None),
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
