"""A shard that was discarded begins from nothing, whatever was known of it before."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import faust
import pytest
from faust.tables.manager import TableManager
from faust.types import TP
from streams.pipeline.answers_table import AnswersStore, AnswersTable, define_answers_table

from tests.support.topics import TOPICS

FIRST = TP(TOPICS.answers_changelog, 0)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[AnswersTable]:
    app = faust.App("test", store="rocksdb://", datadir=tmp_path / "tables", web_enabled=False)
    (tmp_path / "tables" / "v1" / "tables").mkdir(parents=True)
    table = define_answers_table(app, TOPICS.answers_changelog)
    table.store._db_for_partition(0)
    yield table
    table.store._dbs.clear()


def discard(store: AnswersStore) -> None:
    store.discard(0)
    store._db_for_partition(0)


def put_in_place(store: AnswersStore, crashed: Path) -> None:
    """The shard's folder is what a process left behind that was killed."""
    store._dbs.pop(0, None)
    shutil.rmtree(store.partition_path(0))
    shutil.copytree(crashed, store.partition_path(0))


def test_a_shard_whose_manifest_was_cut_off_claims_nothing_that_it_lost(table: AnswersTable, tmp_path: Path) -> None:
    """RocksDB opens it without the files that were named last; their offsets would never be read again."""
    store, crashed = table.store, tmp_path / "crashed"
    for life in range(2):  # the first one's log becomes a file when the second one begins
        for offset in range(20 * life, 20 * (life + 1)):
            store.write(0, b"k%d" % offset, b"v", offset)
        shutil.rmtree(crashed, ignore_errors=True)
        shutil.copytree(store.partition_path(0), crashed)  # as a kill leaves it
        put_in_place(store, crashed)
        store._db_for_partition(0)
    [manifest] = crashed.glob("MANIFEST-*")
    for length in range(1, manifest.stat().st_size):
        put_in_place(store, crashed)
        with (store.partition_path(0) / manifest.name).open("r+b") as torn:
            torn.truncate(length)
        store._db_for_partition(0)
        missing = [at for at in range(store.persisted_offset(FIRST) + 1) if store.read(0, b"k%d" % at) is None]
        assert missing == [], f"cut to {length} bytes"


def test_the_recovery_of_a_discarded_shard_reads_all_of_its_changelog(table: AnswersTable) -> None:
    """Also when the partition stayed here: Faust remembers how far the old shard went."""
    recovery = cast(TableManager, table.app.tables).recovery
    for offset in range(5):
        table.store.write(0, b"k", b"v", offset)
    recovery.add_active(table, FIRST)
    assert recovery.active_offsets[FIRST] == 4
    discard(table.store)
    recovery.add_active(table, FIRST)
    assert recovery.active_offsets[FIRST] == -1


def test_offsets_of_the_old_log_are_forgotten_with_its_shard(table: AnswersTable) -> None:
    """The new log has others: the shard must not claim one that it never got."""
    table.store.write(0, b"k", b"v", 2)
    discard(table.store)
    for offset in range(2):
        table.store.write(0, b"k", b"v", offset)
    assert table.store.persisted_offset(FIRST) == 1


def test_offsets_ahead_are_forgotten_with_each_assignment(table: AnswersTable) -> None:
    """Recovery tells how far the shard goes."""
    table.store.write(0, b"k", b"v", 1)
    table.store.begin_runs_anew()
    table.store.write(0, b"k", b"v", 0)
    assert table.store.persisted_offset(FIRST) == 0
