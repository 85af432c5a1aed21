"""Stops aiokafka's consumer, which by itself may never end (tests/contracts/test_kafka_consumer.py shows it)."""

import asyncio

from aiokafka import AIOKafkaConsumer

_CANCEL_AGAIN_S = 0.2


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Returns when the consumer is closed.

    aiokafka 0.14 cancels its fetching once and waits for it; when the assignment has just changed, the fetching takes
    the cancellation for that of its own pending request, and goes on for ever. So it is cancelled until it ends.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    try:
        while not (await asyncio.wait({stopping}, timeout=_CANCEL_AGAIN_S))[0]:
            fetching = getattr(consumer._fetcher, "_fetch_task", None)
            if fetching is not None:
                fetching.cancel()
        await stopping
    finally:
        stopping.cancel()  # whoever gave up waiting leaves nothing running
