"""Faust's consumer with its own positions out of the way and commit errors survived (infra/adr/0002)."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, cast

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport, ensure_aiokafka_TP
from faust.types import TP

FETCH_MAX_WAIT_MS = 200

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


class KnowsLogEnds(Protocol):
    """What the consumer asks of its app; see streams.pipeline.analyst_app."""

    async def log_ends(self, partitions: Iterable[TP]) -> Mapping[TP, int]: ...


class OwnOffsetsConsumer(Consumer):
    """Fetches and joins the group as Faust does; tells nothing of its own about offsets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NoPositions()

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Where the changelogs end, by the log reader: recovery must not stop before the last batch, as Faust's own
        question would on Tansu (see LogReader.ends)."""
        return await cast(KnowsLogEnds, self.app).log_ends(partitions)

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> Collection[TP]:
        """The partitions whose offsets the broker has taken; those that are not assigned here are left out."""
        assigned = self.assignment()
        ours = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        return ours.keys() if ours and await self._commit(ours) else ()
