"""A producer that keeps itself connected: idempotent where the broker knows how, replaced when it is broken.

aiokafka's idempotent producer has two habits that are dealt with here and by whoever sends. It retries for ever, so a
wait that must end needs its own deadline. And after an error that is not worth a retry its sequence numbers have a
hole: the broker then refuses all that follows, so such a producer is replaced by a new one.

A broker without producer ids (Tansu refuses the request in aiokafka's version of it) gets a producer that is not
idempotent. What that can cost is a record that stands twice in the log, and two records with one id are one
conversation.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownError

START_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 1.0
#: A broker that comes back is found within a second; asking more often than that would help nobody.
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 1.0

_log = structlog.get_logger()


class KeptProducer:
    """Starts without a broker and finds it, and finds it again, by itself.

    `new_producer` is told whether the producer is to be idempotent; `topics` are looked up before the first send.
    """

    def __init__(self, new_producer: Callable[[bool], AIOKafkaProducer], topics: Sequence[str] = ()) -> None:
        self._new_producer = new_producer
        self._topics = topics
        self._is_idempotent = True
        #: The producer of the moment; None while there is no connection.
        self.current: AIOKafkaProducer | None = None
        self._is_there = asyncio.Event()
        self._is_broken = asyncio.Event()
        self._is_closing = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._keeper = asyncio.create_task(self._keep_connected(), name="producer-keeper")

    async def close(self) -> None:
        """Send what is buffered, within FLUSH_TIMEOUT_S, and disconnect. Safe to call again and before start().

        An attempt to connect gets the same time to end by itself: cancelled half-way, aiokafka leaves one open.
        """
        self._is_closing.set()
        self._is_broken.set()
        if self._keeper is not None:
            await asyncio.wait([self._keeper], timeout=FLUSH_TIMEOUT_S)
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._retired:
            await asyncio.wait(self._retired)

    async def available(self) -> AIOKafkaProducer:
        """The producer, however long it takes until there is one."""
        while self.current is None:
            await self._is_there.wait()
        return self.current

    def replace(self, producer: AIOKafkaProducer, error: KafkaError) -> None:
        """`producer` is broken by `error`; nothing happens when another one has taken its place already."""
        if producer is self.current:
            _log.warning("producer_replaced", error=type(error).__name__)
            self._is_broken.set()

    async def _keep_connected(self) -> None:
        while not self._is_closing.is_set():
            self._is_broken.clear()
            producer = await self._connected()
            if producer is None:
                return
            self.current = producer
            self._is_there.set()
            _log.info("broker_connected")
            await self._is_broken.wait()
            self._is_there.clear()
            self.current = None
            # What waits for other partitions may still be delivered by the old one, beside the new one.
            retiring = asyncio.create_task(_stop(producer), name="producer-retiring")
            self._retired.add(retiring)
            retiring.add_done_callback(self._retired.discard)

    async def _connected(self) -> AIOKafkaProducer | None:
        """A started producer, however long that takes; None when close() came first."""
        backoff_s = FIRST_BACKOFF_S
        while not self._is_closing.is_set():
            was_idempotent = self._is_idempotent
            producer = await self._started()
            if producer is not None:
                return producer
            if backoff_s == FIRST_BACKOFF_S and self._is_idempotent == was_idempotent:
                _log.warning("broker_unreachable")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_closing.wait(), backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
        return None

    async def _started(self) -> AIOKafkaProducer | None:
        """One attempt; None when it failed, with nothing left open."""
        producer = self._new_producer(self._is_idempotent)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await producer.start()
                for topic in self._topics:
                    await producer.client.add_topic(topic)
            return producer
        except asyncio.CancelledError:
            await _stop(producer)
            raise
        except UnknownError:
            # While a producer starts, only the request for a producer id is answered so.
            _log.info("broker_without_producer_ids")
            self._is_idempotent = False
        except Exception as error:  # the edge of the loop: whatever went wrong, the next attempt is a new producer
            _log.debug("broker_connection_failed", error=type(error).__name__)
        await _stop(producer)
        return None


async def _stop(producer: AIOKafkaProducer) -> None:
    """With a dead broker an idempotent producer would flush for ever."""
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            await producer.stop()
