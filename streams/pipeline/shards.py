"""Compares local shards with the changelog before Faust recovers from it: a copy may not know more than its source."""

from collections.abc import Iterable

import structlog
from aiokafka import TopicPartition
from faust.types import TP

from streams.pipeline.answers_table import AnswersStore
from streams.pipeline.log_reader import LogReader

log = structlog.get_logger()


async def discard_shards_ahead(
    store: AnswersStore, log_reader: LogReader, changelog: str, assigned: Iterable[TP]
) -> None:
    """Removes shards that end beyond the changelog: a broker that lost its log, or another cluster's data folder.

    Faust's own check would end the worker instead, or its recovery wait for ever for records that never come.
    """
    partitions = [tp for tp in assigned if tp.topic == changelog]
    ends = await log_reader.ends(TopicPartition(tp.topic, tp.partition) for tp in partitions)
    for tp in partitions:
        ends_at = ends[TopicPartition(tp.topic, tp.partition)]
        persisted = store.persisted_offset(tp)
        if persisted >= ends_at:
            log.warning("shard_ahead_of_changelog_discarded", partition=tp.partition, shard=persisted, log=ends_at)
            store.discard(tp.partition)
