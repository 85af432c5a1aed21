"""The answers in memory and the RocksDB table behave alike; shards that are inconsistent are rebuilt."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import faust
import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaConnectionError
from faust.tables.manager import TableManager
from faust.types import TP

from agents.analyse import Answers, Flight
from schemas.errors import Fatal
from streams.engine.answers_table import AnswersStore, AnswersTable, TableAnswers, define_answers_table
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.producer import ConfirmedProducer
from tests.contracts.conftest import PARTITIONS, Cluster
from tests.fakes.analysis import MemoryAnswers
from tests.support.factories import a_job, a_record, an_answer
from tests.support.topic_log import records_of

OURS, NOT_OURS = 2, 3
VALUE = msgspec.json.encode(an_answer(extra={"a": 1}))
pytestmark = pytest.mark.parametrize("cluster", ["tansu"], indirect=True)


def a_flight(key: bytes = b"key:v1", value: bytes = VALUE, partition: int = OURS) -> Flight:
    """Returns a flight whose answer has arrived."""
    flight = Flight(key, a_job(a_record(partition=partition)))
    flight.value = value
    return flight


@pytest.fixture
def table(tmp_path: Path, cluster: Cluster, offset_reader: OffsetReader) -> Iterator[AnswersTable]:
    """The table with the shard of partition 2 open."""
    app = faust.App("test", store="rocksdb://", datadir=tmp_path / "tables", web_enabled=False)
    (tmp_path / "tables" / "v1" / "tables").mkdir(parents=True)
    table = define_answers_table(app, cluster.topics.answers_changelog, offset_reader.end_offsets)
    table.store._db_for_partition(OURS)
    yield table
    table.store._dbs.clear()


@pytest.fixture
def real(table: AnswersTable, confirmed: ConfirmedProducer, cluster: Cluster) -> TableAnswers:
    return TableAnswers(table, confirmed, cluster.topics.answers_changelog)


class Kept(NamedTuple):
    """Answers under test, with a way to stop the changelog from taking the next put."""

    answers: Answers
    producer: ConfirmedProducer | None

    async def refuse(self) -> None:
        if self.producer is None:
            cast(MemoryAnswers, self.answers).is_refusing = True
        else:
            broken = await self.producer._connection.connected()
            broken._message_accumulator.fail_all(InvalidProducerEpoch())

    async def put(self, *flights: Flight) -> None:
        """Stores answers as the analyst does, and returns when they are kept."""
        if isinstance(self.answers, MemoryAnswers):
            self.answers.is_refusing = False
        left = list(flights)
        while left:
            left = await self.answers.put(left)


@pytest.fixture(params=["memory", "rocksdb"])
def kept(request: pytest.FixtureRequest, real: TableAnswers, confirmed: ConfirmedProducer) -> Kept:
    return Kept(MemoryAnswers([OURS]), None) if request.param == "memory" else Kept(real, confirmed)


async def test_what_was_put_is_found(kept: Kept) -> None:
    """Under its own key only."""
    assert await kept.answers.put([a_flight()]) == []
    assert (kept.answers.get(OURS, b"key:v1"), kept.answers.get(OURS, b"key:v2")) == (VALUE, None)


async def test_the_newest_put_counts(kept: Kept) -> None:
    """An answer that was asked for again replaces the old one, also within one batch."""
    await kept.put(a_flight(value=b"1"))
    await kept.put(a_flight(value=b"2"), a_flight(value=b"3"))
    assert kept.answers.get(OURS, b"key:v1") == b"3"


async def test_a_partition_that_is_not_ours_is_never_opened(kept: Kept, table: AnswersTable) -> None:
    """That would take the lock of its owner. The answer is in the changelog, which the owner reads."""
    assert await kept.answers.put([a_flight(partition=NOT_OURS)]) == []
    with pytest.raises(LookupError):
        kept.answers.get(NOT_OURS, b"key:v1")
    assert not table.store.partition_path(NOT_OURS).exists()


async def test_what_the_changelog_does_not_take_is_not_in_the_shard(kept: Kept) -> None:
    """A worker would serve it from there as if it were durable; the flights are handed back."""
    await kept.refuse()
    flight = a_flight()
    assert await kept.answers.put([flight]) == [flight]
    assert kept.answers.get(OURS, b"key:v1") is None
    await kept.put(flight)
    assert kept.answers.get(OURS, b"key:v1") == VALUE


async def test_answers_are_in_the_changelog_of_their_own_partitions(
    real: TableAnswers, cluster: Cluster, table: AnswersTable
) -> None:
    """The partition's next owner restores it from there, from where this shard ends."""
    await real.put([a_flight(b"%d" % n, b"%d" % n, partition=n % 2 + OURS) for n in range(10)])
    records = await records_of(cluster.bootstrap_servers, cluster.topics.answers_changelog)
    assert [(at.partition, at.key, at.value) for at in records] == [
        (n % 2 + OURS, b"%d" % n, b"%d" % n) for n in (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    ]
    assert table.store.persisted_offset(TP(cluster.topics.answers_changelog, OURS)) == 4


async def test_a_shard_that_cannot_be_written_ends_the_worker(real: TableAnswers, table: AnswersTable) -> None:
    """The disk is full, for example; the answer is in the changelog and not lost."""
    table.store._dbs[OURS].close()
    with pytest.raises(Fatal, match="cannot be written"):
        await real.put([a_flight()])


async def test_only_a_shard_that_is_ahead_of_its_changelog_is_discarded(
    table: AnswersTable, real: TableAnswers, cluster: Cluster
) -> None:
    """The broker lost its log, or the folder is another cluster's: recovery would wait for records that never come."""
    other = OURS - 1
    table.store._db_for_partition(other)
    await real.put([a_flight(partition=partition) for partition in (OURS, other)])
    changelog = cluster.topics.answers_changelog
    table.store.set_persisted_offset(TP(changelog, other), 7)
    await table.on_rebalance({TP(changelog, OURS), TP(changelog, other)}, set(), set())
    assert real.get(OURS, b"key:v1") == VALUE
    assert table.store.persisted_offset(TP(changelog, other)) == -1


async def test_an_assignment_begins_though_the_ends_of_the_log_are_not_known(
    table: AnswersTable, real: TableAnswers, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The brokers may be away for a moment; shards stay as they are."""

    async def no_ends(_: object) -> dict[TP, int]:
        raise KafkaConnectionError

    await real.put([a_flight()])
    table._log_ends = no_ends
    await table.on_rebalance({TP(cluster.topics.answers_changelog, OURS)}, set(), set())
    assert real.get(OURS, b"key:v1") == VALUE


async def test_offsets_confirmed_out_of_order_are_counted_when_the_gap_is_filled(table: AnswersTable) -> None:
    """Until then recovery reads from the gap on: what is missing may be another worker's."""
    for offset, end in ((1, -1), (2, -1), (0, 2)):
        table.store.write(OURS, [(b"%d" % offset, b"v", offset)])
        assert table.store.persisted_offset(TP("any", OURS)) == end


async def test_offsets_ahead_of_a_gap_are_forgotten_with_each_assignment(table: AnswersTable) -> None:
    """Recovery says how far the shard goes; others may have written meanwhile."""
    table.store.write(OURS, [(b"k", b"v", 1)])
    table.store.reset_runs()
    table.store.write(OURS, [(b"k", b"v", 0)])
    assert table.store.persisted_offset(TP("any", OURS)) == 0


async def test_a_discarded_shard_knows_nothing_of_the_old_log(table: AnswersTable, cluster: Cluster) -> None:
    """It forgets its offsets, which belong to other records now, and what Faust remembers of them."""
    tp = TP(cluster.topics.answers_changelog, OURS)
    recovery = cast(TableManager, table.app.tables).recovery
    table.store.write(OURS, [(b"k", b"v", offset) for offset in (0, 1, 3)])
    recovery.add_active(table, tp)
    assert recovery.active_offsets[tp] == 1
    discard(table.store)
    recovery.add_active(table, tp)
    assert recovery.active_offsets[tp] == -1
    table.store.write(OURS, [(b"k", b"v", offset) for offset in range(3)])
    assert table.store.persisted_offset(tp) == 2


async def test_a_shard_that_cannot_be_read_is_rebuilt(table: AnswersTable) -> None:
    """Its answers are in the changelog; a truncated file must not stop the worker."""
    table.store.write(OURS, [(b"key", b"value", 7)])
    table.store._dbs.pop(OURS).close()
    for file in table.store.partition_path(OURS).iterdir():
        if file.name.startswith(("MANIFEST", "CURRENT")):
            file.write_bytes(file.read_bytes()[:10])
    table.store._db_for_partition(OURS)
    assert table.store.read(OURS, b"key") is None


async def test_a_shard_whose_manifest_was_cut_off_claims_nothing_that_it_lost(
    table: AnswersTable, tmp_path: Path
) -> None:
    """RocksDB opens it without the files that were named last; their offsets would never be read again."""
    store, crashed = table.store, tmp_path / "crashed"
    for life in range(2):  # the first one's log becomes a file when the second one begins
        store.write(OURS, [(b"k%d" % offset, b"v", offset) for offset in range(20 * life, 20 * (life + 1))])
        shutil.rmtree(crashed, ignore_errors=True)
        shutil.copytree(store.partition_path(OURS), crashed)  # as a kill leaves it
        put_in_place(store, crashed)
        store._db_for_partition(OURS)
    [manifest] = crashed.glob("MANIFEST-*")
    for length in range(1, manifest.stat().st_size, 13):
        put_in_place(store, crashed)
        with (store.partition_path(OURS) / manifest.name).open("r+b") as torn:
            torn.truncate(length)
        store._db_for_partition(OURS)
        end = store.persisted_offset(TP("any", OURS))
        assert [at for at in range(end + 1) if store.read(OURS, b"k%d" % at) is None] == [], f"cut to {length} bytes"


async def test_the_table_is_restored_by_the_next_owner_of_the_partition(
    real: TableAnswers, offset_reader: OffsetReader, cluster: Cluster
) -> None:
    """The end of the changelog, which recovery reads up to, is the true one, whatever the sizes of the batches."""
    await real.put([a_flight(b"%d" % n) for n in range(7)])
    await real.put([a_flight(b"last")])
    changelog = [TopicPartition(cluster.topics.answers_changelog, n) for n in range(PARTITIONS)]
    ends = await offset_reader.end_offsets(changelog)
    assert [ends[tp] for tp in changelog] == [0, 0, 8, 0]


def restore(table: AnswersTable, *records: tuple[int, bytes, bytes | None], partition: int = OURS) -> None:
    """Restores a fetch of (offset, key, value) as recovery does."""
    fetch = [a_record(value, partition=partition, offset=offset, key=key) for offset, key, value in records]
    table.restore(TopicPartition(table._changelog, partition), fetch)


def owns(table: AnswersTable, partition: int = OURS) -> None:
    cast(TableManager, table.app.tables).recovery.active_tps.add(TP(table._changelog, partition))


async def test_a_whole_fetch_is_restored_in_order(table: AnswersTable) -> None:
    """The newest value of a key counts, one without a value was removed, and offsets may be missing: compaction."""
    owns(table)
    restore(table, (0, b"a", b"1"), (3, b"a", b"2"), (4, b"b", b"1"), (7, b"b", None))
    assert (table.store.read(OURS, b"a"), table.store.read(OURS, b"b")) == (b"2", None)
    assert table.store.persisted_offset(TP("any", OURS)) == 7


async def test_what_the_shard_has_is_not_overwritten_by_a_late_fetch(table: AnswersTable) -> None:
    """It may come after another rebalance, when newer answers were kept."""
    owns(table)
    restore(table, (0, b"a", b"old"), (5, b"a", b"new"))
    restore(table, (0, b"a", b"old"))
    assert table.store.read(OURS, b"a") == b"new"
    restore(table, (5, b"a", b"new"), (6, b"b", b"1"))
    assert table.store.persisted_offset(TP("any", OURS)) == 6


async def test_a_late_fetch_of_a_partition_given_up_opens_no_shard(table: AnswersTable) -> None:
    """That would take the lock of its new owner."""
    restore(table, (0, b"a", b"1"), partition=NOT_OURS)
    assert not table.store.partition_path(NOT_OURS).exists()


def discard(store: AnswersStore) -> None:
    store.discard(OURS)
    store._db_for_partition(OURS)


def put_in_place(store: AnswersStore, crashed: Path) -> None:
    """Copies in the shard's folder of a process that was killed."""
    store._dbs.pop(OURS, None)
    shutil.rmtree(store.partition_path(OURS))
    shutil.copytree(crashed, store.partition_path(OURS))
