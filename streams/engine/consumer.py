"""Faust's consumer as a group member that reads changelogs only; streams.worker.intake reads the inputs."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, ConsumerRebalanceListener, Transport
from faust.types import TP
from mode.threads import QueueServiceThread

from streams.engine.answers_table import AnswersTable
from streams.engine.membership import GroupLease, watch_membership
from streams.kafka.clients import stop_consumer
from streams.kafka.offset_reader import halted_note

FETCH_MAX_WAIT_MS = 200
#: A commit that is not answered by then is due again.
COMMIT_TIMEOUT_S = 3.0
#: aiokafka's generation of a consumer that is not a member. Brokers accept its commits while the group is empty.
NO_GENERATION = -1
#: With a broker that does not answer, the group notices by itself, after the session timeout.
LEAVE_TIMEOUT_S = 0.5

log = structlog.get_logger()


class MemberApp(Protocol):
    """What consumer and thread need of their app; see streams.engine.app."""

    inputs: frozenset[str]
    lease: GroupLease
    answers: AnswersTable

    async def log_ends(self, partitions: Iterable[TP]) -> Mapping[TP, int]: ...

    def fail_to_join(self, error: KafkaError) -> None: ...


class PauseInputs(ConsumerRebalanceListener):
    """Pauses the inputs at aiokafka as soon as they are assigned; an assignment forgets what was paused before.

    Faust's own notion of paused is another one and is left alone: it polls the inputs once a second and is given
    nothing. Those polls keep max.poll.interval content: with the inputs out of Faust's active set, aiokafka would leave
    the group after that time and never come back.
    """

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """See aiokafka.abc.ConsumerRebalanceListener."""
        consumer = self._thread._ensure_consumer()
        consumer.pause(*(tp for tp in assigned if tp.topic in cast(MemberApp, self._thread.app).inputs))
        await super().on_partitions_assigned(assigned)


class MemberThread(AIOKafkaConsumerThread):
    """Renews the lease, commits as a member of one generation only, and stops in time."""

    async def on_start(self) -> None:
        """Starts the consumer and watches its membership."""
        await super().on_start()
        app = cast(MemberApp, self.app)

        def fail(error: KafkaError) -> None:
            self.parent_loop.call_soon_threadsafe(app.fail_to_join, error)

        watch_membership(self._ensure_consumer()._coordinator, app.lease, fail)

    async def on_thread_stop(self) -> None:
        """As Faust does, but bounded: its consumer may not stop by itself, or wait half a minute for its broker."""
        await QueueServiceThread.on_thread_stop(self)
        if self._consumer is not None:
            try:
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    await stop_consumer(self._consumer)
            except TimeoutError:
                log.warning("group_not_left")

    def _create_worker_consumer(self, transport: Transport) -> AIOKafkaConsumer:
        """Shortens the time that a fetch may wait at the broker, which Faust fixes at 1.5 s: questions about offsets
        queue up behind it, several of them in each rebalance."""
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer

    async def commit_as(
        self, generation: int, offsets: Mapping[TopicPartition, int], *, has_halted: bool = False
    ) -> bool:
        """Commits what was finished in that generation of the group; False when the broker did not take it.

        `has_halted` adds the note that OffsetReader.halted_members looks for.

        The request is built before anything is awaited, so the generation that is compared here is the one that is
        sent. AIOKafkaConsumer.commit retries without end, each time as a member of the generation that is then, or as
        none: after a rebalance that takes another worker's later offset back (Kafka:
        ClassicGroup.validateOffsetCommit). The group may also give the worker up between its join and its assignment,
        which then has no generation.
        """
        coordinator = self._ensure_consumer()._coordinator
        if generation == NO_GENERATION or coordinator.generation != generation:
            return False
        note = halted_note(coordinator.member_id) if has_halted else ""
        request = {tp: OffsetAndMetadata(offset, note) for tp, offset in offsets.items()}
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await coordinator._do_commit_offsets(None, request)
        except (KafkaError, TimeoutError) as error:
            log.warning("commit_not_taken", error=type(error).__name__, partitions=len(request))
            return False
        return True


class _NoPositions(dict[TP, int | None]):
    """Faust's read positions, switched off: it drops records below them, and a rebalance leaves stale ones behind."""

    def __getitem__(self, key: TP) -> None:
        return None

    def __setitem__(self, key: TP, value: int | None) -> None:
        pass

    def update(self, *args: Any, **kwargs: Any) -> None:
        pass


class MemberConsumer(Consumer):
    """Joins the group and restores tables as Faust does; is never given a record of the inputs."""

    RebalanceListener = PauseInputs

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NoPositions()
        #: Records of the inputs that Faust fetched after all: none, or a seam has moved (tests look).
        self.leaked = 0

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return MemberThread(self, loop=self.loop, beacon=self.beacon)

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109  as Faust has it
        """Restores the table from a whole fetch, and leaves Faust the last record of each partition to count by.

        Faust takes 0.2 ms for each record of a changelog. Records of the inputs are dropped: their topic has no
        stream, so its queue would fill and block the changelogs.
        """
        fetched, active = await super()._wait_next_records(timeout)
        if not fetched or not self.flow_active:  # what comes while the flow is off is read again
            return fetched, active
        app, last = cast(MemberApp, self.app), {}
        for tp, records in fetched.items():
            if tp.topic in app.inputs:
                self.leaked += len(records)
                log.error("input_fetched_by_faust", topic=tp.topic, partition=tp.partition)
            else:
                app.answers.restore(tp, records)
                last[tp] = records[-1:]
        return last, active

    async def perform_seek(self) -> None:
        """Nothing: it would ask the broker for each input, in each rebalance; the reader knows where to begin."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: it would log an error for each input every 7 s, since nothing is fetched from it."""

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The end offsets of the changelogs; see OffsetReader.end_offsets for why Faust's are not."""
        return await cast(MemberApp, self.app).log_ends(partitions)

    async def commit_as(
        self, generation: int, offsets: Mapping[TopicPartition, int], *, has_halted: bool = False
    ) -> bool:
        """See MemberThread.commit_as."""
        thread = cast(MemberThread, self._thread)
        return bool(await thread.call_thread(thread.commit_as, generation, offsets, has_halted=has_halted))
