"""The consumer's thread tells up to where Faust was given records, and never waits for it."""

import asyncio
from typing import cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError
from faust.types import TP
from streams.pipeline.consumer_thread import OwnOffsetsThread


class Consumer:
    """It has read partition 0; partition 1's position is being asked for; 2 is another's."""

    async def position(self, partition: TopicPartition) -> int:
        if partition.partition == 1:
            await asyncio.Event().wait()
        if partition.partition == 2:
            raise IllegalStateError
        return 7


async def test_what_is_not_known_at_once_is_left_out() -> None:
    """A wait of aiokafka's would hold up this thread's commits."""
    thread = OwnOffsetsThread.__new__(OwnOffsetsThread)
    thread._consumer = cast(AIOKafkaConsumer, Consumer())
    async with asyncio.timeout(5):
        assert await thread.handed_out([TP("conversations", n) for n in range(3)]) == {TP("conversations", 0): 7}
