"""The thread of Faust's consumer: heartbeats that are heard of, commits that may fail, and an end in time."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Protocol, cast

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalGenerationError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Transport, ensure_aiokafka_TP
from faust.types import TP
from mode.threads import QueueServiceThread

from streams.kafka_consumer import stop_consumer
from streams.pipeline.group_voice import listen
from streams.pipeline.lease import GroupLease

FETCH_MAX_WAIT_MS = 200
#: A commit that is not answered by then is due again.
COMMIT_WITHIN_S = 3.0
#: Brokers that do not answer are told nothing: the group gives us up by itself, after the session timeout.
LEAVE_WITHIN_S = 0.5

#: aiokafka's word for no member of the group.
NO_GENERATION = -1

#: In which generation the offsets that are being committed were finished.
_GENERATION: ContextVar[int] = ContextVar("generation")

log = structlog.get_logger()


class GroupApp(Protocol):
    """What thread and consumer ask of their app; see streams.pipeline.analyst_app."""

    lease: GroupLease

    async def log_ends(self, partitions: Iterable[TP]) -> Mapping[TP, int]: ...


class OwnOffsetsThread(AIOKafkaConsumerThread):
    """Keeps the lease, stops in time, and survives commits that are not taken."""

    async def on_start(self) -> None:
        """Starts Faust's consumer, and listens to what its group says: aiokafka keeps that to itself."""
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator
        listen(coordinator, cast(GroupApp, self.app).lease)
        _commit_as_members_only(coordinator)

    async def on_thread_stop(self) -> None:
        """As Faust does, but for a consumer that would not end by itself, or waits half a minute for its broker."""
        await QueueServiceThread.on_thread_stop(self)
        if self._consumer is not None:
            try:
                async with asyncio.timeout(LEAVE_WITHIN_S):
                    await stop_consumer(self._consumer)
            except TimeoutError:
                log.warning("group_not_left")

    def _create_worker_consumer(self, transport: Transport) -> AIOKafkaConsumer:
        """Faust's consumer, but for the time that a fetch may wait at the broker, which it fixes at 1.5 s: questions
        about offsets queue up behind a waiting fetch, several of them in each rebalance."""
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer

    async def commit_as(self, generation: int, offsets: Mapping[TP, int]) -> bool:
        """Commits what was finished in that generation of the group.

        False when the broker did not take the offsets, or this is no member of the generation any more: they are due
        again soon, where Faust would crash.
        """
        _GENERATION.set(generation)
        ours = {ensure_aiokafka_TP(tp): OffsetAndMetadata(at, "") for tp, at in offsets.items()}
        try:
            # aiokafka would try again without end, each time as a member of the generation that is then: after a
            # rebalance it would take another worker's later offset back.
            async with asyncio.timeout(COMMIT_WITHIN_S):
                await self._ensure_consumer().commit(ours)
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            log.warning("commit_not_taken", error=type(error).__name__, partitions=len(ours))
            return False
        return True

    async def seek_each(self, offsets: Mapping[TP, int]) -> None:
        """Seeks where the fetcher runs: from another thread, a hand-out to Faust could undo it or raise KeyError."""
        for tp, offset in offsets.items():
            self._ensure_consumer().seek(ensure_aiokafka_TP(tp), offset)

    async def handed_out(self, partitions: Iterable[TP]) -> Mapping[TP, int]:
        """The offset after what Faust was given of each partition; without those that are not assigned any more or
        whose position is not known yet."""
        found = {}
        for tp in partitions:
            # Within no time: aiokafka would wait for the position, and this thread's commits with it.
            with suppress(IllegalStateError, TimeoutError):
                async with asyncio.timeout(0):
                    found[tp] = await self._ensure_consumer().position(ensure_aiokafka_TP(tp))
        return found


def _commit_as_members_only(coordinator: Any) -> None:
    """Looks at the generation where the request is made.

    A consumer that the group gave up commits as nobody, without a generation, until it has joined again. Brokers refuse
    that unless the group has no member just then: after a freeze, when the other worker has left, it would take that
    worker's offsets back (Kafka: ClassicGroup.validateOffsetCommit).
    """
    commit = coordinator._do_commit_offsets

    async def commit_as_member(assignment: Any, offsets: Any) -> None:
        if coordinator.generation == NO_GENERATION or coordinator.generation != _GENERATION.get():
            raise IllegalGenerationError(f"finished in {_GENERATION.get()}, now in {coordinator.generation}")
        await commit(assignment, offsets)

    def begin_to_commit(assignment: Any, offsets: Any) -> "asyncio.Task[None]":
        # aiokafka shields it: one that outlasts COMMIT_WITHIN_S goes on, and its error is nobody's any more.
        committing = asyncio.ensure_future(commit_as_member(assignment, offsets))
        committing.add_done_callback(_hear_the_error)
        return committing

    coordinator._do_commit_offsets = begin_to_commit


def _hear_the_error(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()
