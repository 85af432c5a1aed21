"""How far the group is behind, from the broker's own offsets: records, and the age of the oldest unfinished one."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from aiokafka import TopicPartition

from schemas.kafka import Topics
from streams.kafka.log_reader import LogReader
from streams.telemetry.lag_view import Lag


class LogLag:
    """A streams.telemetry.lag_view.LagSource that asks the log itself."""

    def __init__(
        self, log_reader: LogReader, inputs: Collection[str], wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._log_reader = log_reader
        self._inputs = inputs
        self._wall_clock = wall_clock

    async def read(self) -> Lag:
        """Raises aiokafka.errors.KafkaError when the broker does not answer."""
        counts = await self._log_reader.partitions(self._inputs)
        partitions = [TopicPartition(topic, n) for topic, count in counts.items() for n in range(count)]
        positions = await self._log_reader.positions(partitions) if partitions else {}
        behind = {partition: at.start for partition, at in positions.items() if at.end > at.start}
        oldest = await self._log_reader.first_records(behind)
        # Offsets without a record, such as a transaction's marker at the end of the log, are nobody's work.
        done = {partition for partition, record in oldest.items() if record is None}
        records: dict[int, int] = defaultdict(int)
        for partition, at in positions.items():
            records[partition.partition] += 0 if partition in done else max(0, at.end - at.start)
        stamps_s = [record.timestamp / 1000 for record in oldest.values() if record is not None]
        age_s = max(0.0, self._wall_clock() - min(stamps_s)) if stamps_s else 0.0
        return Lag(dict(records), age_s, await self._log_reader.members())


class ConnectingLag:
    """A LagSource for a process that has no LogReader of its own: connects when asked, anew after an error."""

    def __init__(self, client_options: Mapping[str, Any], topics: Topics) -> None:
        self._client_options = client_options
        self._topics = topics
        self._log_reader: LogReader | None = None
        # Health checks and the metrics loop ask at the same time; one connection serves both.
        self._lock = asyncio.Lock()

    async def read(self) -> Lag:
        """Raises aiokafka.errors.KafkaError when the broker does not answer."""
        async with self._lock:
            if self._log_reader is None:
                log_reader = LogReader(self._client_options, self._topics)
                await log_reader.start()
                self._log_reader = log_reader
            try:
                return await LogLag(self._log_reader, self._topics.inputs).read()
            except BaseException:
                await self._disconnect()
                raise

    async def stop(self) -> None:
        """Disconnects; a reading under way is waited for."""
        async with self._lock:
            await self._disconnect()

    async def _disconnect(self) -> None:
        if self._log_reader is not None:
            log_reader, self._log_reader = self._log_reader, None
            await log_reader.stop()
