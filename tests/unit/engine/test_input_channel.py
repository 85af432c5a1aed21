"""The channel that feeds the agent: one queue for all its clones, which nothing but the agent empties."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from streams.engine.app import InputChannel, Lifecycle, WorkerApp
from tests.support.topics import TOPICS


@pytest.fixture
async def channel(tmp_path: Path) -> InputChannel:
    return InputChannel(
        WorkerApp(
            cast(Lifecycle, None),
            TOPICS,
            lambda partitions: asyncio.sleep(0, {}),
            broker=["kafka://127.0.0.1:1"],
            broker_session_timeout=10.0,
            datadir=tmp_path,
        )
    )


async def test_a_stream_gets_what_was_put_into_the_channel(channel: InputChannel) -> None:
    """Faust clones the channel for each stream."""
    await channel.put("fetch")
    assert await channel.clone(is_iterator=True).queue.get() == "fetch"


async def test_a_resume_leaves_the_queue_alone(channel: InputChannel) -> None:
    """A recovery resumes twice, and Faust's own queues are empty after that."""
    stream = channel.clone(is_iterator=True)
    await channel.put("fetch")
    for _ in range(2):
        channel.app.flow_control.suspend()
        channel.app.flow_control.resume()
    assert stream.queue.get_nowait() == "fetch"


async def test_the_reader_waits_until_the_fetch_before_was_taken(channel: InputChannel) -> None:
    """Otherwise fetches would pile up beyond the bound of open records."""
    await channel.put("first")
    putting = asyncio.create_task(channel.put("second"))
    await asyncio.sleep(1)
    assert not putting.done()
    channel.queue.get_nowait()
    await putting
