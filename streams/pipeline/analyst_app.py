"""The Faust app: it fetches, assigns and recovers tables; offsets, start and stop are the worker's (infra/adr/0002)."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import faust
from faust.app.base import BootStrategy
from faust.tables.manager import TableManager
from faust.types import TP, ConsumerT

from schemas.errors import Retryable
from schemas.kafka import Topics
from streams.pipeline.answers_table import define_answers_table
from streams.pipeline.faust_consumer import OwnOffsetsConsumer
from streams.pipeline.lease import GroupLease

#: Without a heartbeat for so long the group gives a worker up. Apache Kafka refuses less than 6 s.
SESSION_TIMEOUT_S = 10.0


class Worker(Protocol):
    """What the app tells its worker; see streams.pipeline.worker."""

    failure: BaseException | None
    failed: asyncio.Event

    async def start(self, app: "AnalystApp") -> None: ...

    async def before_recovery(self, assigned: set[TP]) -> None: ...

    async def log_ends(self, partitions: Iterable[TP]) -> Mapping[TP, int]: ...

    async def end_assignment(self, consumer: OwnOffsetsConsumer) -> None: ...

    async def last_work_ended(self) -> None: ...

    async def stop(self) -> None: ...


class _NoWeb(BootStrategy):
    """`faust worker` would switch the web server on whatever the app says: an open port with table data, for anyone."""

    enable_web = False


class AnalystApp(faust.App):
    """One for a worker process; `names` are those of its topics, since a Faust app has `topics` of its own."""

    BootStrategy = _NoWeb

    def __init__(self, worker: Worker, names: Topics, **options: Any) -> None:
        super().__init__(
            names.consumer_group,
            autodiscover=False,
            store="rocksdb://",
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            # Off: a second set of offsets, a leader's own topic, and a check that ends the worker for a harmless
            # race of one record.
            stream_wait_empty=False,
            topic_disable_leader=True,
            recovery_consistency_check=False,
            # Records may be half a megabyte each: a buffer of Faust's 4,096 would be gigabytes while calls wait.
            stream_buffer_maxsize=512,
            table_standby_replicas=0,
            topic_allow_declare=False,  # `grok-insights topics` makes them, so workers need no right to
            stream_recovery_delay=0.5,
            # Joining takes about half of the rebalance timeout on Tansu, and a member needs its drain and its last
            # commit within it.
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=3.0,
            broker_rebalance_timeout=12.0,
            broker_request_timeout=30.0,
            # A worker whose calls all wait for a provider that is down polls nothing, and is healthy all the same.
            broker_max_poll_interval=86_400.0,
            **options,
        )
        self.worker = worker
        self._inputs = names.inputs
        self.lease = GroupLease(SESSION_TIMEOUT_S)
        setattr(self.transport, "Consumer", OwnOffsetsConsumer)  # noqa: B010  a class variable, set for this app alone
        self.answers = define_answers_table(self, names.answers_changelog)

    @property
    def has_been_assigned(self) -> bool:
        """Whether a first assignment, its tables restored, is or was there; the generation would not tell: Tansu's
        first one is 0, as before any."""
        return bool(cast(TableManager, self.tables).recovery.completed.is_set())

    async def check_assigned(self) -> None:
        """A health check. Raises Retryable while the worker joins the group or restores its table."""
        if not self._is_settled:
            raise Retryable("joining the group or restoring the answers table")

    @property
    def flowing_inputs(self) -> set[TP]:
        """The assigned partitions of the input topics; none while the worker joins the group or restores its table."""
        return {tp for tp in self.consumer.assignment() if tp.topic in self._inputs} if self._is_settled else set()

    @property
    def _is_settled(self) -> bool:
        return not self.rebalancing and not self.in_recovery and self.has_been_assigned

    async def log_ends(self, partitions: Iterable[TP]) -> Mapping[TP, int]:
        """Where partitions end; see streams.pipeline.log_reader."""
        return await self.worker.log_ends(partitions)

    async def on_start(self) -> None:
        await self.worker.start(self)
        await super().on_start()

    async def on_stop(self) -> None:
        try:
            await super().on_stop()
        finally:
            await self.worker.stop()

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        if self.should_stop and revoked:
            # Faust would let them go at once, while their calls are under way: the next worker would pay for the same
            # texts, and what ends here could not be committed any more.
            await self.worker.last_work_ended()
        await super()._on_partitions_revoked(revoked)

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        if not self.should_stop:
            await self.worker.before_recovery(assigned)
        await super()._on_partitions_assigned(assigned, generation_id)

    async def _consumer_wait_empty(self, consumer: ConsumerT, logger: Any) -> None:
        """Called when partitions are revoked and when the app stops, before anyone else gets them."""
        assert isinstance(consumer, OwnOffsetsConsumer)
        await self.worker.end_assignment(consumer)
