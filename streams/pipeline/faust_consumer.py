"""Faust's consumer with its own positions out of the way and commit errors survived (infra/adr/0002)."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, cast

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.consumer import ensure_TP
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport, ensure_aiokafka_TP
from faust.types import TP
from mode.threads import QueueServiceThread

from streams.kafka_consumer import stop_consumer
from streams.pipeline.lease import GroupLease

FETCH_MAX_WAIT_MS = 200
#: Brokers that do not answer are told nothing: the group gives us up by itself, after the session timeout.
LEAVE_WITHIN_S = 1.0

log = structlog.get_logger()


class _NoPositions(dict[TP, int | None]):
    """Faust's notion of what was read, switched off: it drops and acks records by it, and it can undo a seek."""

    def __getitem__(self, key: TP) -> None:
        return None

    def __setitem__(self, key: TP, value: int | None) -> None:
        pass

    def update(self, *args: Any, **kwargs: Any) -> None:
        pass


class _Thread(AIOKafkaConsumerThread):
    async def on_start(self) -> None:
        """Starts Faust's consumer, and listens to its heartbeats: aiokafka keeps the time of the last one to itself."""
        await super().on_start()
        coordinator, lease = self._ensure_consumer()._coordinator, cast(KnowsGroup, self.app).lease
        send_heartbeat = coordinator._do_heartbeat

        async def send_and_tell() -> bool:
            sent_at_s = time.monotonic()
            was_taken = bool(await send_heartbeat())
            if was_taken:
                lease.renewed(sent_at_s)
            return was_taken

        coordinator._do_heartbeat = send_and_tell

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

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """False when the broker did not take the offsets: they are due again soon, where Faust would crash."""
        ours = {ensure_aiokafka_TP(tp): OffsetAndMetadata(at, "") for tp, at in offsets.items()}
        try:
            await self._ensure_consumer().commit(ours)
        except (KafkaError, IllegalStateError) as error:
            log.warning("commit_not_taken", error=type(error).__name__, partitions=len(ours))
            return False
        return True


class KnowsGroup(Protocol):
    """What the consumer asks of its app; see streams.pipeline.analyst_app."""

    lease: GroupLease

    async def log_ends(self, partitions: Iterable[TP]) -> Mapping[TP, int]: ...


class OwnOffsetsConsumer(Consumer):
    """Fetches and joins the group as Faust does; tells nothing of its own about offsets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NoPositions()

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    # A recovery that read records ends with the fetcher at work, and two of Faust's steps then lose what it brings.
    # Only a later record in the partition would show the hole, and there may be none for hours.

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Lets nothing into the streams until Faust resumes their flow, which is next: it empties their queues then."""
        self.app.flow_control.suspend()
        super().resume_partitions(tps)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Also to the begin where nothing is committed yet, which aiokafka leaves out: while every partition is paused,
        a fetch under way takes from all of them, and Faust drops it."""
        committed: Mapping[TP, int] = await super().seek_to_committed()
        at_begin = [tp for tp, offset in committed.items() if not offset and not self._is_changelog_tp(ensure_TP(tp))]
        for tp, begin in (await self.earliest_offsets(*at_begin)).items():
            await self._seek(ensure_TP(tp), begin)
        return committed

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Where the changelogs end, by the log reader: recovery must not stop before the last batch, as Faust's own
        question would on Tansu (see LogReader.ends)."""
        return await cast(KnowsGroup, self.app).log_ends(partitions)

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> Collection[TP]:
        """The partitions whose offsets the broker has taken; those that are not assigned here are left out."""
        assigned = self.assignment()
        ours = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        return ours.keys() if ours and await self._commit(ours) else ()
