"""The RocksDB table `answers`: Faust's table and its recovery, with shards named outright and broken ones rebuilt."""

import shutil
from pathlib import Path
from typing import Any

import faust
import structlog
from faust.stores.rocksdb import Store
from faust.types import TP
from faust.types.stores import StoreT
from rocksdict import Rdict, WriteBatch

from schemas.kafka import ANSWERS_TABLE

#: Each partition is a RocksDB of its own; Faust's defaults would take 2 GiB of cache and 192 MiB of buffers for each.
_OPTIONS = {
    "driver": "rocksdict",
    "block_cache_size": 8 * 1024 * 1024,
    "write_buffer_size": 8 * 1024 * 1024,
    "max_write_buffer_number": 2,
}

log = structlog.get_logger()


class OffsetRun:
    """Offsets that were written out of order; of those beyond a hole at most MAX_AHEAD are remembered."""

    #: Beyond so many, recovery reads from the hole on, and all it costs is time.
    MAX_AHEAD = 1_000

    def __init__(self) -> None:
        self._ahead: set[int] = set()

    def add(self, reached: int, offset: int) -> int:
        """The end of the unbroken run that `reached` is the end of, now that `offset` is written too."""
        if offset == reached + 1 or (offset > reached and len(self._ahead) < self.MAX_AHEAD):
            self._ahead.add(offset)
        before = reached
        while reached + 1 in self._ahead:
            reached += 1
        if reached > before:
            self._ahead = {other for other in self._ahead if other > reached}
        return reached


class AnswersStore(Store):
    """Faust finds a shard by the task's current event; calls in flight have none, so here the partition is named."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runs: dict[int, OffsetRun] = {}

    def read(self, partition: int, key: bytes) -> bytes | None:
        """The stored value. Raises LookupError when the partition is not assigned here."""
        value: bytes | None = self._shard(partition).get(key)
        return value

    def write(self, partition: int, key: bytes, value: bytes, changelog_offset: int) -> None:
        """Key, value and, in one atomic batch, the changelog's offset up to which the shard has everything.

        That moves over an unbroken run of written offsets only: confirmations may be heard of in another order than
        they came, and what stands in between may be another worker's, which had the partition while this one was
        frozen. Recovery then reads it.

        Raises LookupError when the partition is not assigned here: opening its shard would take the lock of
        whoever owns it now.
        """
        shard = self._shard(partition)
        batch = WriteBatch(raw_mode=True)
        batch.put(key, value)
        before = int(shard.get(self.offset_key) or -1)
        reached = self._run_of(partition).add(before, changelog_offset)
        if reached > before:
            batch.put(self.offset_key, str(reached).encode())
        shard.write(batch)

    def discard(self, partition: int) -> None:
        """Removes the shard's files; recovery then reads the whole changelog of the partition."""
        shard = self._dbs.pop(partition, None)
        if shard is not None:
            shard.close()
        self._runs.pop(partition, None)  # those offsets were the old log's
        shutil.rmtree(self.partition_path(partition), ignore_errors=True)

    def persisted_offset(self, tp: TP) -> int:
        """-1 where the shard is empty: None would let Faust go on from what it remembers of a discarded one."""
        offset = super().persisted_offset(tp)
        return -1 if offset is None else offset

    def begin_runs_anew(self) -> None:
        """A new assignment: recovery tells how far each shard goes, and others may have written meanwhile."""
        self._runs.clear()

    def _run_of(self, partition: int) -> OffsetRun:
        return self._runs.setdefault(partition, OffsetRun())

    def _shard(self, partition: int) -> Rdict:
        shard: Rdict = self._dbs[partition]
        return shard

    def _open_for_partition(self, partition: int) -> Rdict:
        """The shard is a copy: one that cannot be read, or has lost some of its files, is made anew from the changelog.

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
    """A Faust table whose store is an AnswersStore, and whose changelog is named outright."""

    def __init__(self, app: faust.App, changelog: str, **options: Any) -> None:
        super().__init__(app, **options)
        self._changelog = changelog

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

    @property
    def store(self) -> AnswersStore:
        """The store, opened on first use."""
        store = self.data
        assert isinstance(store, AnswersStore)
        return store


def define_answers_table(app: faust.App, changelog: str) -> AnswersTable:
    """Registers the table with the app; its changelog is made by `grok-insights topics`."""
    options: dict[str, Any] = {
        "name": ANSWERS_TABLE,
        "key_type": bytes,
        "value_type": bytes,
        "beacon": app.tables.beacon,
    }
    table = AnswersTable(app, changelog, **options)
    app.tables.add(table)
    return table
