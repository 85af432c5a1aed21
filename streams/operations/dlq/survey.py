"""Reads the dead-letter topic in bounded memory, counts the dead letters and keeps the newest of them."""

import heapq
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from aiokafka import TopicPartition

from schemas.kafka import Topics
from streams.kafka.admin import check_topics
from streams.kafka.scan import bounds, scan
from streams.operations.broker_errors import broker_errors_as_fatal
from streams.operations.dlq.dead_letter import DeadLetterId, StoredDeadLetter, read_dead_letter
from streams.operations.dlq.ledger import ReplayMark, read_ledger
from streams.operations.dlq.selection import Eligibility, Filters, Selection

Bounds = Mapping[TopicPartition, tuple[int, int]]


async def dead_letter_bounds(client_options: Mapping[str, Any], topics: Topics) -> Bounds:
    """Returns the topic's current bounds, which exclude dead letters that arrive later.

    Raises Fatal when topics are missing, KafkaError when no broker answers.
    """
    await check_topics(client_options, (topics.conversations, topics.dead_letters, topics.replay_ledger))
    return await bounds(client_options, topics, [topics.dead_letters])


async def read_dead_letters(
    client_options: Mapping[str, Any], wanted: Bounds
) -> AsyncGenerator[StoredDeadLetter, None]:
    """Yields the dead letters within the bounds, in the order of each partition. Raises KafkaError."""
    async with aclosing(scan(client_options, wanted)) as batches:
        async for records in batches:
            for record in records:
                yield read_dead_letter(record)


@broker_errors_as_fatal()
async def find_dead_letter(
    client_options: Mapping[str, Any], topics: Topics, wanted: DeadLetterId
) -> tuple[StoredDeadLetter, ReplayMark | None] | None:
    """Returns a dead letter with its mark, None where it does not exist (any more). Raises Fatal."""
    partition = TopicPartition(topics.dead_letters, wanted.partition)
    beginning, end = (await dead_letter_bounds(client_options, topics)).get(partition, (0, 0))
    if not beginning <= wanted.offset < end:
        return None
    only = {partition: (wanted.offset, wanted.offset + 1)}
    async with aclosing(read_dead_letters(client_options, only)) as found:
        async for dead_letter in found:
            return dead_letter, (await read_ledger(client_options, topics)).mark_of(dead_letter)
    return None


@dataclass(slots=True)
class Survey:
    """Counts of dead letters: by eligibility, and by reason those that are unresolved and those that are eligible."""

    by: Counter[Eligibility] = field(default_factory=Counter)
    unresolved: Counter[str] = field(default_factory=Counter)
    eligible: Counter[str] = field(default_factory=Counter)

    def add(self, dead_letter: StoredDeadLetter, eligibility: Eligibility) -> None:
        """Counts one dead letter."""
        self.by[eligibility] += 1
        if eligibility is Eligibility.ELIGIBLE:
            self.eligible[dead_letter.reason] += 1
        if eligibility not in (Eligibility.FILTERED, Eligibility.REPLAYED):
            self.unresolved[dead_letter.reason] += 1


class Newest:
    """Keeps the `limit` dead letters that died last, without values and headers, so that memory is bounded.

    Leaves out the replayed ones unless `with_replayed`.
    """

    def __init__(self, limit: int, *, with_replayed: bool = False) -> None:
        self._limit = limit
        self._with_replayed = with_replayed
        self._heap: list[tuple[datetime, DeadLetterId, StoredDeadLetter, ReplayMark | None]] = []

    def add(self, dead_letter: StoredDeadLetter, mark: ReplayMark | None) -> None:
        """Keeps the dead letter if it is among the newest so far; `mark` says that it was replayed."""
        if mark is not None and not self._with_replayed:
            return
        item = (dead_letter.at, dead_letter.id, replace(dead_letter, value=None, headers=[]), mark)
        heapq.heappush(self._heap, item)
        if len(self._heap) > self._limit:
            heapq.heappop(self._heap)

    def newest_first(self) -> list[tuple[StoredDeadLetter, ReplayMark | None]]:
        """Returns the dead letters with their marks; at the same moment, the later offset comes first."""
        return [(dead_letter, mark) for _, _, dead_letter, mark in sorted(self._heap, reverse=True)]


@broker_errors_as_fatal()
async def survey_dead_letters(
    client_options: Mapping[str, Any],
    topics: Topics,
    filters: Filters,
    newest: Newest | None = None,
    *,
    again: bool = False,
) -> tuple[Bounds, Selection, Survey]:
    """Counts the topic's dead letters, and collects the newest of those that pass the filters.

    Returns the bounds and the selection for a replay of just these. Raises Fatal.
    """
    wanted = await dead_letter_bounds(client_options, topics)
    selection = Selection(filters, await read_ledger(client_options, topics), again)
    async with aclosing(read_dead_letters(client_options, wanted)) as found:
        return wanted, selection, await survey(found, selection, newest)


async def survey(found: AsyncIterator[StoredDeadLetter], selection: Selection, newest: Newest | None = None) -> Survey:
    """Counts the dead letters; see `survey_dead_letters`."""
    counts = Survey()
    async for dead_letter in found:
        eligibility = selection.eligibility(dead_letter)
        counts.add(dead_letter, eligibility)
        if newest is not None and eligibility is not Eligibility.FILTERED:
            newest.add(dead_letter, selection.ledger.mark_of(dead_letter))
    return counts
