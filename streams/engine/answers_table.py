"""The RocksDB table `answers`: Faust's table and its recovery, written by partition, changelog first."""

import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import faust
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from faust.stores.rocksdb import Store
from faust.tables.manager import TableManager
from faust.types import TP, EventT
from faust.types.stores import StoreT
from rocksdict import Rdict, WriteBatch

from agents.analyse import Flight
from schemas.errors import Fatal
from schemas.kafka import ANSWERS_TABLE
from streams.kafka.producer import ConfirmedProducer, Outgoing

#: Each partition is a RocksDB of its own; Faust's defaults would take 2 GiB of cache and 192 MiB of buffers for each.
#: With these, eight partitions take about 50 MiB, and not more with a million answers.
_OPTIONS = {
    "driver": "rocksdict",
    "block_cache_size": 4 * 1024 * 1024,
    "write_buffer_size": 4 * 1024 * 1024,
    "max_write_buffer_number": 2,
}

#: End offsets of partitions, by the log itself.
LogEnds = Callable[[Iterable[TP]], Awaitable[Mapping[TP, int]]]

log = structlog.get_logger()


class OffsetRun:
    """Offsets that were written out of order; of those beyond a gap at most MAX_AHEAD are remembered."""

    #: With more, recovery reads from the gap on, and all it costs is time.
    MAX_AHEAD = 1_000

    def __init__(self) -> None:
        self._ahead: set[int] = set()

    def add(self, reached: int, offset: int) -> int:
        """The end of the unbroken run that `reached` is the end of, now that `offset` is written too."""
        if offset == reached + 1 and not self._ahead:
            return offset
        if offset == reached + 1 or (offset > reached and len(self._ahead) < self.MAX_AHEAD):
            self._ahead.add(offset)
        before = reached
        while reached + 1 in self._ahead:
            reached += 1
        if reached > before:
            self._ahead = {other for other in self._ahead if other > reached}
        return reached


class AnswersStore(Store):
    """Faust finds a shard by the task's current event; answers have none, so here the partition is named."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runs: dict[int, OffsetRun] = {}

    def read(self, partition: int, key: bytes) -> bytes | None:
        """The stored value. Raises LookupError when the partition is not assigned here."""
        value: bytes | None = self._dbs[partition].get(key)
        return value

    def write(self, partition: int, entries: Sequence[tuple[bytes, bytes, int]]) -> None:
        """Stores (key, value, changelog offset) entries in one atomic batch, with how far the shard is complete.

        That moves over an unbroken run of written offsets only: confirmations may arrive in another order, and offsets
        in between may be another worker's, which had the partition while this one was frozen. Recovery reads those.

        Raises LookupError when the partition is not assigned here: opening its shard would take the lock of its owner.
        """
        shard: Rdict = self._dbs[partition]
        batch = WriteBatch(raw_mode=True)
        before = reached = self._reached(shard)
        run = self._runs.setdefault(partition, OffsetRun())
        for key, value, offset in entries:
            batch.put(key, value)
            reached = run.add(reached, offset)
        if reached > before:
            batch.put(self.offset_key, str(reached).encode())
        shard.write(batch)

    def restore(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Stores what the changelog has from where the shard ends on, in order; what it had already stays."""
        shard: Rdict = self._db_for_partition(partition)
        reached = self._reached(shard)
        batch = WriteBatch(raw_mode=True)
        for record in records:
            if record.offset > reached:
                if record.value is None:
                    batch.delete(record.key)
                else:
                    batch.put(record.key, record.value)
        if records[-1].offset > reached:
            batch.put(self.offset_key, str(records[-1].offset).encode())
        shard.write(batch)

    def discard(self, partition: int) -> None:
        """Removes the shard's files; recovery then reads the whole changelog of the partition."""
        shard = self._dbs.pop(partition, None)
        if shard is not None:
            shard.close()
        self._runs.pop(partition, None)  # those offsets were the old log's
        shutil.rmtree(self.partition_path(partition), ignore_errors=True)

    def persisted_offset(self, tp: TP) -> int:
        """-1 where the shard is empty: None would let Faust continue from what it remembers of a discarded one."""
        offset = super().persisted_offset(tp)
        return -1 if offset is None else offset

    def _reached(self, shard: Rdict) -> int:
        return int(shard.get(self.offset_key) or -1)

    def reset_runs(self) -> None:
        """A new assignment: recovery tells how far each shard goes, and others may have written meanwhile."""
        self._runs.clear()

    def _open_for_partition(self, partition: int) -> Rdict:
        """Rebuilds a shard that cannot be read, or has lost some of its files: it is a copy of the changelog.

        Raises what RocksDB raises when another process has it open; Faust waits for that.
        """
        before = _sst_files(self.partition_path(partition))
        try:
            shard: Rdict = super()._open_for_partition(partition)
        except Exception as error:  # rocksdict raises bare Exceptions
            if "lock" in repr(error).lower():
                raise
            log.warning("shard_unreadable_rebuilding_from_changelog", partition=partition)
        else:
            # RocksDB takes a manifest that was cut off for one that ends there, and forgets the files it named last.
            if before <= {Path(str(file["name"])).name for file in shard.live_files()}:
                return shard
            log.warning("shard_lost_files_rebuilding_from_changelog", partition=partition)
            shard.close()
        self.discard(partition)
        rebuilt: Rdict = super()._open_for_partition(partition)
        return rebuilt


def _sst_files(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.sst")}


class AnswersTable(faust.Table[bytes, bytes]):
    """A Faust table whose store is an AnswersStore; its changelog is created by `grok-insights topics`."""

    def __init__(self, app: faust.App, changelog: str, log_ends: LogEnds, **options: Any) -> None:
        # Set first: the base class asks for the changelog's name.
        self._changelog = changelog
        self._log_ends = log_ends
        super().__init__(app, **options)

    @property
    def store(self) -> AnswersStore:
        """The store, opened on first use."""
        store = self.data
        assert isinstance(store, AnswersStore)
        return store

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Discards shards that cannot be right before Faust opens and restores them.

        Those end beyond the changelog: the broker lost its log, or the data folder is another cluster's. Faust's own
        check would end the worker instead, or its recovery wait indefinitely for records that never come.
        """
        self.store.reset_runs()
        try:
            ends = await self._log_ends([tp for tp in assigned if tp.topic == self._changelog])
        except KafkaError as error:
            log.warning("shards_not_compared", error=type(error).__name__)
            ends = {}
        for tp, end in ends.items():
            persisted = self.store.persisted_offset(TP(tp.topic, tp.partition))
            if persisted >= end:
                log.warning("shard_ahead_of_changelog_discarded", partition=tp.partition, shard=persisted, log=end)
                self.store.discard(tp.partition)
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    def restore(self, tp: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Stores records of the changelog that were fetched in order; those of a partition given up are passed over."""
        if tp in cast(TableManager, self.app.tables).recovery.active_tps:
            self.store.restore(tp.partition, records)

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Nothing: `restore` has stored them, and maybe newer ones since."""

    def _changelog_topic_name(self) -> str:
        return self._changelog

    def _new_store(self) -> StoreT[bytes, bytes]:
        return AnswersStore(
            self.app.conf.store,
            self.app,
            self,
            table_name=self.name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            options=dict(_OPTIONS),
        )


def define_answers_table(app: faust.App, changelog: str, log_ends: LogEnds) -> AnswersTable:
    """Registers the table with the app."""
    table = AnswersTable(
        app, changelog, log_ends, name=ANSWERS_TABLE, key_type=bytes, value_type=bytes, beacon=app.tables.beacon
    )
    app.tables.add(table)
    return table


class TableAnswers:
    """The table as the analyst sees it; see agents.analyse.Answers."""

    def __init__(self, table: AnswersTable, producer: ConfirmedProducer, changelog: str) -> None:
        self._table = table
        self._producer = producer
        self._changelog = changelog

    def get(self, partition: int, key: bytes) -> bytes | None:
        """The stored value. Raises LookupError when the partition is not assigned here."""
        return self._table.store.read(partition, key)

    async def put(self, flights: list[Flight]) -> list[Flight]:
        """Returns the flights that the changelog did not take now. Raises Fatal when a shard cannot be written.

        The shard comes second: if it came first and the changelog failed, a retry would find the answer and take it
        for kept.
        """
        records = [Outgoing(flight.key, flight.value, (), flight.partition) for flight in flights]
        deliveries = await self._producer.send_all(self._changelog, records)
        refused: list[Flight] = []
        entries: dict[int, list[tuple[bytes, bytes, int]]] = {}
        for flight, delivery in zip(flights, deliveries, strict=True):
            if isinstance(delivery, int):
                entries.setdefault(flight.partition, []).append((flight.key, flight.value, delivery))
            else:
                refused.append(flight)
        for partition, of_partition in entries.items():
            self._write(partition, of_partition)
        return refused

    def _write(self, partition: int, entries: Sequence[tuple[bytes, bytes, int]]) -> None:
        try:
            self._table.store.write(partition, entries)
        except LookupError:
            return  # the partition was revoked meanwhile; its next owner reads the answers from the changelog
        except Exception as error:  # rocksdict raises bare Exceptions
            hint = "look at the space and the rights of DATA_DIR"
            raise Fatal("the answers table cannot be written", type(error).__name__, hint) from error
