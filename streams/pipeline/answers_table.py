"""The RocksDB table `answers`: Faust's table and its recovery, with shards named outright and broken ones rebuilt."""

import shutil
from typing import Any

import faust
import structlog
from faust.stores.rocksdb import Store
from faust.types.stores import StoreT
from rocksdict import Rdict, WriteBatch

from schemas.topics import ANSWERS_TABLE

#: Each partition is a RocksDB of its own; Faust's defaults would take 2 GiB of cache and 192 MiB of buffers for each.
_OPTIONS = {
    "driver": "rocksdict",
    "block_cache_size": 8 * 1024 * 1024,
    "write_buffer_size": 8 * 1024 * 1024,
    "max_write_buffer_number": 2,
}

log = structlog.get_logger()


class AnswersStore(Store):
    """Faust finds a shard by the task's current event; calls in flight have none, so here the partition is named."""

    def read(self, partition: int, key: bytes) -> bytes | None:
        """The stored value. Raises LookupError when the partition is not assigned here."""
        value: bytes | None = self._shard(partition).get(key)
        return value

    def write(self, partition: int, key: bytes, value: bytes, changelog_offset: int) -> None:
        """Key, value and the changelog's offset in one atomic batch, so that recovery starts where the shard ends.

        The offset never moves back: confirmations of one partition may be heard of in another order than they came.

        Raises LookupError when the partition is not assigned here: opening its shard would take the lock of
        whoever owns it now.
        """
        shard = self._shard(partition)
        batch = WriteBatch(raw_mode=True)
        batch.put(key, value)
        if changelog_offset > int(shard.get(self.offset_key) or -1):
            batch.put(self.offset_key, str(changelog_offset).encode())
        shard.write(batch)

    def discard(self, partition: int) -> None:
        """Removes the shard's files; recovery then reads the whole changelog of the partition."""
        shard = self._dbs.pop(partition, None)
        if shard is not None:
            shard.close()
        shutil.rmtree(self.partition_path(partition), ignore_errors=True)

    def _shard(self, partition: int) -> Rdict:
        shard: Rdict = self._dbs[partition]
        return shard

    def _open_for_partition(self, partition: int) -> Rdict:
        shard: Rdict
        try:
            shard = super()._open_for_partition(partition)
        except Exception as error:  # rocksdict raises bare Exceptions
            if "lock" in repr(error).lower():
                raise  # another process has it; Faust waits for that
            # The shard is a copy: what it held stands in the changelog.
            log.warning("shard_unreadable_rebuilding_from_changelog", partition=partition)
            self.discard(partition)
            shard = super()._open_for_partition(partition)
        return shard


class AnswersTable(faust.Table[bytes, bytes]):
    """A Faust table whose store is an AnswersStore."""

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


def define_answers_table(app: faust.App) -> AnswersTable:
    """Registers the table with the app; its changelog is made by `grok-insights topics`."""
    options: dict[str, Any] = {
        "name": ANSWERS_TABLE,
        "key_type": bytes,
        "value_type": bytes,
        "beacon": app.tables.beacon,
    }
    table = AnswersTable(app, **options)
    app.tables.add(table)
    return table
