"""Reads and counts dead letters in bounded memory, and decides which of them a replay sends."""

import heapq
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from aiokafka import TopicPartition

from schemas.errors import Fatal
from schemas.instant import time_ago
from schemas.kafka import Topics
from streams.kafka.admin import check_topics
from streams.kafka.scan import bounds, scan
from streams.operations.broker_errors import broker_errors_as_fatal
from streams.operations.dlq.dead_letter import DeadLetterId, StoredDeadLetter, parse_id, read_dead_letter
from streams.operations.dlq.ledger import ReplayLedger, ReplayMark, read_ledger

#: A record that died again after this many replays will die once more; a person has to look at it first.
MAX_REPLAYS = 3
Bounds = Mapping[TopicPartition, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Filters:
    """A dead letter must pass every filter that is set."""

    reasons: frozenset[str] = frozenset()
    since: datetime | None = None
    ids: frozenset[DeadLetterId] = frozenset()
    conversations: frozenset[str] = frozenset()

    @property
    def are_empty(self) -> bool:
        return self == Filters()

    @property
    def named(self) -> frozenset[DeadLetterId | str]:
        """The IDs of dead letters and of conversations that are asked for."""
        return self.ids | self.conversations

    def match(self, dead_letter: StoredDeadLetter) -> bool:
        if self.reasons and dead_letter.reason not in self.reasons:
            return False
        if self.since is not None and dead_letter.at < self.since:
            return False
        if self.ids and dead_letter.id not in self.ids:
            return False
        return not self.conversations or dead_letter.conversation_id in self.conversations


def parse_filters(
    reasons: Iterable[str], since: str | None, ids: Iterable[str], conversations: Iterable[str], now: datetime
) -> Filters:
    """Parses the options of the command line. Raises Fatal with exit code 2 for an invalid one."""
    return Filters(
        frozenset(reasons),
        None if since is None else parse_since(since, now),
        frozenset(_parse_id(text) for text in ids),
        frozenset(_parse_conversation(text) for text in conversations),
    )


def parse_since(text: str, now: datetime) -> datetime:
    """Parses a duration before `now` (90s, 30m, 2h, 3d, 1w) or an ISO 8601 timestamp, UTC unless it says otherwise.

    Raises Fatal with exit code 2 for anything else.
    """
    try:
        time = time_ago(text, now) or datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        what = f"invalid --since: {text!r} is neither a duration (2h) nor an ISO 8601 timestamp"
        raise Fatal(what, hint="examples: 30m, 2h, 3d, 2026-01-31T12:00:00Z", exit_code=2) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _parse_id(text: str) -> DeadLetterId:
    dead_letter_id = parse_id(text)
    if dead_letter_id is None:
        hint = "expected PARTITION:OFFSET, for example 3:17; select conversations with --conversation"
        raise Fatal(f"invalid --id: {text!r} is not a dead-letter ID", hint=hint, exit_code=2)
    return dead_letter_id


def _parse_conversation(text: str) -> str:
    if not text or parse_id(text) is not None:
        what = f"{text!r} is a dead-letter ID" if text else "the conversation's ID is empty"
        raise Fatal(f"invalid --conversation: {what}", hint="select dead letters with --id", exit_code=2)
    return text


class Eligibility(Enum):
    """Whether a replay sends a dead letter. All but FILTERED and REPLAYED ones are unresolved."""

    ELIGIBLE = auto()
    FILTERED = auto()
    REPLAYED = auto()
    TOO_OFTEN = auto()  # died again after MAX_REPLAYS replays
    FOREIGN = auto()  # written by another program, without an origin


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters and ledger together; with `again`, neither a mark nor earlier replays make a dead letter ineligible."""

    filters: Filters
    ledger: ReplayLedger
    again: bool = False

    def eligibility(self, dead_letter: StoredDeadLetter) -> Eligibility:
        if not self.filters.match(dead_letter):
            return Eligibility.FILTERED
        if dead_letter.origin is None:
            return Eligibility.FOREIGN
        if self.again:
            return Eligibility.ELIGIBLE
        if self.ledger.mark_of(dead_letter) is not None:
            return Eligibility.REPLAYED
        return Eligibility.TOO_OFTEN if dead_letter.replays >= MAX_REPLAYS else Eligibility.ELIGIBLE


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
    """Counts of dead letters: by eligibility, and by reason those that are unresolved and those that are eligible.

    `named` has those of `Filters.named` that a dead letter has, whatever the other filters say of it.
    """

    by: Counter[Eligibility] = field(default_factory=Counter)
    unresolved: Counter[str] = field(default_factory=Counter)
    eligible: Counter[str] = field(default_factory=Counter)
    named: set[DeadLetterId | str | None] = field(default_factory=set)


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
    counts, named = Survey(), selection.filters.named
    async for dead_letter in found:
        counts.named |= named & {dead_letter.id, dead_letter.conversation_id}
        eligibility = selection.eligibility(dead_letter)
        counts.by[eligibility] += 1
        if eligibility is Eligibility.ELIGIBLE:
            counts.eligible[dead_letter.reason] += 1
        if eligibility not in (Eligibility.FILTERED, Eligibility.REPLAYED):
            counts.unresolved[dead_letter.reason] += 1
        if newest is not None and eligibility is not Eligibility.FILTERED:
            newest.add(dead_letter, selection.ledger.mark_of(dead_letter))
    return counts
