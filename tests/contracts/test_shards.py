"""A local shard may not know more than its changelog."""

from pathlib import Path

import faust
from faust.types import TP
from streams.pipeline.answers_table import define_answers_table
from streams.pipeline.shards import discard_shards_ahead
from streams.sinks.producer import ConfirmedProducer

from streams.dev.local.tansu import Tansu
from streams.kafka.offset_reader import OffsetReader
from tests.support.topics import TOPICS


async def test_only_a_shard_that_ends_beyond_its_changelog_is_discarded(
    tansu: Tansu, producer: ConfirmedProducer, tmp_path: Path
) -> None:
    """The broker lost its log, or the folder is another cluster's: recovery would wait for ever. A good one is kept."""
    app = faust.App("test", store="rocksdb://", datadir=tmp_path / "tables", web_enabled=False)
    (tmp_path / "tables" / "v1" / "tables").mkdir(parents=True)
    store = define_answers_table(app, TOPICS.answers_changelog).store
    for partition in (0, 1):
        store._db_for_partition(partition)
        at = await producer.send(TOPICS.answers_changelog, key=b"k", value=b"v", headers=[], partition=partition)
        store.write(partition, b"k", b"v", at.offset)
    store.set_persisted_offset(TP(TOPICS.answers_changelog, 1), at.offset + 7)
    reader = OffsetReader({"bootstrap_servers": tansu.bootstrap_servers}, TOPICS)
    await reader.start()
    await discard_shards_ahead(
        store, reader, TOPICS.answers_changelog, [TP(TOPICS.answers_changelog, 0), TP(TOPICS.answers_changelog, 1)]
    )
    await reader.stop()
    assert store.read(0, b"k") == b"v"
    assert not store.partition_path(1).exists()
