"""Consumer lag of the worker group, read from the broker's own offsets."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka import TopicPartition

from schemas.kafka import Topics
from streams.kafka.offset_reader import OffsetReader


@dataclass(frozen=True, slots=True)
class Lag:
    """Unfinished records, the age of the oldest one in seconds, the member count, and how many members have halted.

    A partition number counts once for all input topics: partition 3 of each is assigned to the same worker. No worker
    reads input topics that have not `equal_partitions`.
    """

    records_by_partition: Mapping[int, int]
    seconds: float
    members: int
    halted: int = 0
    equal_partitions: bool = True

    @property
    def records(self) -> int:
        """All unfinished records."""
        return sum(self.records_by_partition.values())

    @property
    def worker_running(self) -> bool:
        """Whether the group has a member."""
        return self.members > 0


class LagSource(Protocol):
    """Reads the lag; every call asks the broker again."""

    async def read(self) -> Lag:
        """Returns the current lag. Raises when the broker does not answer."""


class LagReader:
    """A LagSource on an OffsetReader that the caller starts and stops."""

    def __init__(self, offset_reader: OffsetReader, inputs: Collection[str]) -> None:
        self._offset_reader = offset_reader
        self._inputs = inputs

    async def read(self) -> Lag:
        """Raises aiokafka.errors.KafkaError when the broker does not answer."""
        counts = await self._offset_reader.partition_counts(self._inputs)
        partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        positions = await self._offset_reader.positions(partitions) if partitions else {}
        behind = {tp: position.start for tp, position in positions.items() if position.end > position.start}
        oldest = await self._offset_reader.first_records(behind)
        # Offsets without a record, such as a transaction marker at the end of the log, are not lag.
        caught_up = {tp for tp, record in oldest.items() if record is None}
        records: dict[int, int] = defaultdict(int)
        for tp, position in positions.items():
            records[tp.partition] += 0 if tp in caught_up else max(0, position.end - position.start)
        timestamps_s = [record.timestamp / 1000 for record in oldest.values() if record is not None]
        age_s = max(0.0, time.time() - min(timestamps_s)) if timestamps_s else 0.0
        members = await self._offset_reader.members()
        halted = await self._offset_reader.halted_members(partitions) if partitions and members else frozenset()
        return Lag(dict(records), age_s, len(members), len(members & halted), len(set(counts.values())) <= 1)


class ConnectingLagReader:
    """A LagSource with its own OffsetReader: connects on the first read and after an error."""

    def __init__(self, client_options: Mapping[str, Any], topics: Topics) -> None:
        self._client_options = client_options
        self._topics = topics
        self._offset_reader: OffsetReader | None = None
        #: Health checks and the metrics loop read at the same time and share one connection.
        self._lock = asyncio.Lock()

    async def read(self) -> Lag:
        """Raises aiokafka.errors.KafkaError when the broker does not answer."""
        async with self._lock:
            if self._offset_reader is None:
                offset_reader = OffsetReader(self._client_options, self._topics)
                await offset_reader.start()
                self._offset_reader = offset_reader
            try:
                return await LagReader(self._offset_reader, self._topics.inputs).read()
            except BaseException:
                await self._disconnect()
                raise

    async def stop(self) -> None:
        """Waits for a read in progress, then disconnects."""
        async with self._lock:
            await self._disconnect()

    async def _disconnect(self) -> None:
        if self._offset_reader is not None:
            offset_reader, self._offset_reader = self._offset_reader, None
            await offset_reader.stop()


class LagCheck:
    """A health check that keeps the lag it read, so that /health need not read it again."""

    def __init__(self, source: LagSource) -> None:
        self._source = source
        self.latest: Lag | None = None

    async def check(self) -> None:
        """Reads the lag again.

        Raises what the source raises; `latest` is None until a read succeeds.
        """
        self.latest = None
        self.latest = await self._source.read()
