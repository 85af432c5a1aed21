"""Rebalance: what happens to the work when partitions are assigned, revoked, or given up by a stop."""

import asyncio
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents.analyst import Analyst
from schemas.errors import Fatal, Retryable
from schemas.kafka import Topics
from streams.engine.app import WorkerApp
from streams.engine.recovery_watch import watch_recovery
from streams.kafka.offset_reader import OffsetReader
from streams.worker.fencing import Fence
from streams.worker.intake import Intake
from streams.worker.lifecycle import Lifecycle
from streams.worker.timings import Timings

_GROW = "give all of them the largest number: grok-insights topics --grow"

log = structlog.get_logger()


class Rebalance:
    """Connects itself to the signals of the app.

    assigned -> table restored (rebalance complete) -> reading -> revoked or stopped: drain, last commit

    Topics that no longer agree, since one of them was given more partitions, do not end the worker. It continues
    with its assignment; of a later one nothing is read until they agree again.
    """

    def __init__(
        self,
        app: WorkerApp,
        intake: Intake,
        analyst: Analyst,
        fence: Fence,
        offset_reader: OffsetReader,
        topics: Topics,
        life: Lifecycle,
        timings: Timings,
    ) -> None:
        self._app = app
        self._intake = intake
        self._analyst = analyst
        self._fence = fence
        self._offset_reader = offset_reader
        self._topics = topics
        self._life = life
        self._timings = timings
        #: The inputs and the generation of the latest assignment, until it is read.
        self._assigned: tuple[list[TopicPartition], int] | None = None
        self._is_restored = False
        #: Why the topics cannot be used now.
        self._unusable: Fatal | None = None
        self._is_stopped = False
        #: A revocation may come during a stop: it waits for the same drain.
        self._ending = asyncio.Lock()
        # Typed as Any: the types of mode's signals admit no handler that names its arguments.
        assigned: Any = app.on_partitions_assigned
        restored: Any = app.on_rebalance_complete
        revoked: Any = app.on_partitions_revoked
        assigned.connect(self._on_assigned)
        restored.connect(self._on_restored)
        revoked.connect(self._on_revoked)

    async def start(self) -> None:
        """Checks the topics, then commits from time to time. Raises Fatal for topics that cannot be used."""
        self._analyst.partitions = await count_partitions(self._offset_reader, self._topics)
        self._life.keep_running(self._intake.keep_committing(self._timings.commit_interval_s))
        self._life.keep_running(
            watch_recovery(self._app, self._offset_reader.check, stall_s=self._timings.recovery_stall_s)
        )
        self._life.keep_running(self._keep_counting())

    async def stop(self) -> None:
        """Nothing: `leave` came before."""

    async def leave(self) -> None:
        """Ends the assignment for good, while this worker is still a member of the group.

        A drain that has begun already, for a rebalance, may be allowed more time than a stop has.
        """
        self._is_stopped = True
        shortening = asyncio.get_running_loop().call_later(
            self._timings.stop_drain_s, self._analyst.shorten_drain, self._timings.keep_s
        )
        try:
            await self._end()
        finally:
            shortening.cancel()

    async def check_partitions(self) -> None:
        """A health check. Raises Retryable while the topics cannot be used together, with what to do."""
        if (error := self._unusable) is not None:
            raise Retryable(f"{error.what}: {error.why}; {error.hint}")

    async def _keep_counting(self) -> None:
        """The client that joined the group looks just as often, and rejoins when a topic has grown."""
        while True:
            await asyncio.sleep(self._timings.partitions_check_s)
            await self._count()
            self._begin()

    async def _count(self) -> None:
        """The number of partitions decides who owns a text. Brokers that do not answer leave it as it was."""
        try:
            self._analyst.partitions = await count_partitions(self._offset_reader, self._topics)
            self._unusable = None
        except KafkaError as error:
            log.warning("partitions_not_counted", error=type(error).__name__)
        except Fatal as error:
            if self._unusable is None or self._unusable.why != error.why:
                log.error("topics_unusable", error=error.what, why=error.why, hint=error.hint)
            self._unusable = error

    async def _end(self) -> None:
        """No new record or call; a bounded time for those in flight; the last commit; then nothing of it counts."""
        self._fence.close()
        async with self._ending:
            assignment = self._intake.end()
            if assignment is None:
                return
            timings = self._timings
            try:
                await self._analyst.drain(timings.stop_drain_s if self._is_stopped else timings.drain_s, timings.keep_s)
                async with asyncio.timeout(timings.last_commit_s):
                    await self._intake.commit(assignment)
            except TimeoutError:
                log.warning("last_commit_not_answered")
            finally:
                assignment.revoke()
                self._analyst.forget()
            if assignment.reader is not None:  # it has had the drain's time to close its consumer
                await asyncio.wait({assignment.reader}, timeout=timings.reader_stop_s)

    async def _on_assigned(self, app: Any, assigned: set[TopicPartition], **_: Any) -> None:
        inputs = [TopicPartition(tp.topic, tp.partition) for tp in assigned if tp.topic in self._app.inputs]
        self._is_restored = False
        if inputs:
            generation = self._app.consumer_generation_id
            log.info("partitions_assigned", partitions=sorted({tp.partition for tp in inputs}), generation=generation)
        # One with other partitions of one topic than of another comes of topics that differ; when they agree again, the
        # group assigns again.
        self._assigned = (inputs, self._app.consumer_generation_id) if self._is_whole(assigned) else None
        await self._count()

    def _is_whole(self, assigned: set[TopicPartition]) -> bool:
        topics = (*self._topics.inputs, self._topics.answers_changelog)
        return len({frozenset(tp.partition for tp in assigned if tp.topic == topic) for topic in topics}) == 1

    async def _on_restored(self, app: Any, **_: Any) -> None:
        """Every shard is open and up to date. Sent before Faust looks whether another rebalance has come meanwhile."""
        self._is_restored = not self._app.is_rebalancing_again
        self._begin()

    def _begin(self) -> None:
        if self._assigned is None or not self._is_restored or self._unusable is not None or self._is_stopped:
            return
        (inputs, generation), self._assigned = self._assigned, None
        if inputs and generation == self._app.consumer_generation_id:
            self._fence.open()
            self._intake.begin(inputs, generation)
            log.info("partitions_ready", partitions=sorted({tp.partition for tp in inputs}), generation=generation)

    async def _on_revoked(self, app: Any, revoked: set[TopicPartition], **_: Any) -> None:
        """Faust awaits this before it rejoins the group: until then the partitions are ours."""
        self._assigned = None
        if inputs := {tp.partition for tp in revoked if tp.topic in self._app.inputs}:
            log.info("partitions_revoked", partitions=sorted(inputs))
        await self._end()


async def count_partitions(offset_reader: OffsetReader, topics: Topics, *also_needed: str) -> int:
    """The number of partitions of each input topic.

    Raises Fatal where topics that a worker uses, or those that are `also_needed`, are missing, or differ in what must
    be equal: Faust assigns partition i of the inputs and of the changelog to one worker.
    """
    equal = (*topics.inputs, topics.answers_changelog)
    needed = (*equal, topics.insights, topics.dead_letters, *also_needed)
    counts = await offset_reader.partition_counts(needed)
    missing = [topic for topic in needed if not counts.get(topic)]
    if missing:
        raise Fatal("topics are missing", ", ".join(missing), "create them with: grok-insights topics")
    if len({counts[topic] for topic in equal}) > 1:
        why = ", ".join(f"{topic} has {counts[topic]}" for topic in equal)
        raise Fatal("topics differ in their number of partitions", why, _GROW)
    return counts[topics.conversations]
