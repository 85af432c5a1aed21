"""The cache in memory and the one on the RocksDB table keep the same promises."""

from pathlib import Path

import faust
import pytest
from agents.cache import AnswerCache
from aiokafka import TopicPartition
from streams.pipeline.answers_table import AnswersTable, define_answers_table
from streams.pipeline.attempts import AssignmentOver
from streams.pipeline.table_cache import ShardCache
from streams.sinks.producer import ConfirmedProducer

from streams.dev.local.tansu import Tansu
from streams.kafka.offset_reader import OffsetReader
from tests.fakes.analysis import MemoryCache, an_answer
from tests.support.topics import TOPICS


@pytest.fixture
def table(tmp_path: Path) -> AnswersTable:
    app = faust.App("test", store="rocksdb://", datadir=tmp_path / "tables", web_enabled=False)
    (tmp_path / "tables" / "v1" / "tables").mkdir(parents=True)
    table = define_answers_table(app, TOPICS.answers_changelog)
    table.store._db_for_partition(2)
    return table


@pytest.fixture(params=["memory", "rocksdb"])
def cache(request: pytest.FixtureRequest, table: AnswersTable, producer: ConfirmedProducer) -> AnswerCache:
    return (
        MemoryCache() if request.param == "memory" else ShardCache(table.store, producer, TOPICS.answers_changelog, 2)
    )


async def test_what_was_put_is_found(cache: AnswerCache) -> None:
    """Down to the last field, and under no other key."""
    await cache.put("key:v1", an_answer(extra={"a": 1}))
    assert cache.get("key:v1") == an_answer(extra={"a": 1})
    assert cache.get("key:v2") is None


async def test_the_newest_put_counts(cache: AnswerCache) -> None:
    """An answer asked for anew replaces the old one."""
    await cache.put("key", an_answer())
    await cache.put("key", an_answer(urgency="low"))
    found = cache.get("key")
    assert found is not None
    assert found.insight.urgency == "low"


async def test_an_answer_stands_in_the_changelog_of_its_own_partition(
    table: AnswersTable, producer: ConfirmedProducer, tansu: Tansu
) -> None:
    """Whoever takes the partition over restores it from there, and from where this shard ends."""
    await ShardCache(table.store, producer, TOPICS.answers_changelog, 2).put("key", an_answer())
    reader = OffsetReader({"bootstrap_servers": tansu.bootstrap_servers}, TOPICS)
    await reader.start()
    partitions = [TopicPartition(TOPICS.answers_changelog, n) for n in range(4)]
    ends = await reader.end_offsets(partitions)
    await reader.stop()
    assert [ends[partition] for partition in partitions] == [0, 0, 1, 0]
    assert table.store.read(2, table.store.offset_key) == b"0"


async def test_a_partition_that_is_not_ours_is_left_alone(table: AnswersTable, producer: ConfirmedProducer) -> None:
    """Opening its shard would take the lock of whoever owns it now."""
    cache = ShardCache(table.store, producer, TOPICS.answers_changelog, 3)
    with pytest.raises(AssignmentOver):
        cache.get("key")
    await cache.put("key", an_answer())  # into the changelog, which its owner reads
    assert not table.store.partition_path(3).exists()


def test_an_answer_of_an_older_shape_counts_as_none(table: AnswersTable) -> None:
    """It is asked for anew instead of stopping the partition."""
    table.store.write(2, b"key", b'{"old": true}', 0)
    assert ShardCache(table.store, None, TOPICS.answers_changelog, 2).get("key") is None  # type: ignore[arg-type]


def test_a_broken_shard_is_built_anew(table: AnswersTable) -> None:
    """What it held stands in the changelog; a truncated file must not stop the worker."""
    table.store.write(2, b"key", b"value", 7)
    path = table.store.partition_path(2)
    table.store._dbs.pop(2).close()
    for file in path.iterdir():
        if file.name.startswith(("MANIFEST", "CURRENT")):
            file.write_bytes(file.read_bytes()[:10])
    table.store._db_for_partition(2)
    assert table.store.read(2, b"key") is None
