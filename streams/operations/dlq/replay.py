"""Replays dead letters into `conversations`: each is confirmed, then marked in the ledger, many at a time."""

import asyncio
import math
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiokafka.structs import RecordMetadata

from agents.limits.retry import Backoff, retry
from schemas.errors import Fatal, Retryable, Unprocessable
from schemas.kafka import Origin, Topics
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.producer import ConfirmedProducer, Outgoing
from streams.kafka.unreachable_brokers import CHECK_SERVERS
from streams.operations.broker_errors import REFUSALS, broker_errors_as_fatal
from streams.operations.dlq.dead_letter import DeadLetterId, StoredDeadLetter, original_value, replay_record
from streams.operations.dlq.ledger import ReplayLedger, mark_record
from streams.operations.dlq.selection import Bounds, Eligibility, Selection, read_dead_letters

MAX_IN_FLIGHT = 256
MAX_IN_FLIGHT_BYTES = 64 * 1024 * 1024
#: Failures beyond this number are counted, not described.
MAX_DESCRIBED = 20
MIN_RATE_PER_S = 0.1
#: Records that are sent within this time share a request.
LINGER_MS = 10
#: A restarting broker is back by then; after that, a person should look.
CONFIRM_WITHIN_S = 30.0
BACKOFF = Backoff(base_s=0.2, cap_s=30.0)
#: Not a dead letter's ID, so that no reader mistakes it for a mark; without a value, compaction removes it.
PROBE_KEY = b"may-write"


class Pacer:
    """Spaces turns evenly, without saving up a burst while idle; `per_s` None lets every turn come at once.

    `max_in_flight` is one second's worth: all of it may arrive at once when brokers answer again after an outage.
    """

    def __init__(self, per_s: float | None) -> None:
        self._gap_s = 0.0 if per_s is None else 1 / per_s
        self._next_s = float("-inf")
        self.max_in_flight = sys.maxsize if per_s is None else max(1, int(per_s))

    def wait_s(self, now_s: float) -> float:
        """Takes the next turn and returns the time until then."""
        turn_s = max(now_s, self._next_s)
        self._next_s = turn_s + self._gap_s
        return turn_s - now_s


def check_rate(per_s: float | None) -> None:
    """Raises Fatal with exit code 2 for anything but a finite rate of at least MIN_RATE_PER_S."""
    if per_s is not None and not (math.isfinite(per_s) and per_s >= MIN_RATE_PER_S):
        what = f"invalid --rate: {per_s:g} is not a rate of at least {MIN_RATE_PER_S:g} per second"
        raise Fatal(what, hint="without --rate, the replay runs at full speed", exit_code=2)


@dataclass(slots=True)
class ReplayResult:
    """Counts of a replay: records confirmed by reason, dead letters marked, and failures, the first ones described."""

    sent: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    failed: int = 0
    failures: list[tuple[DeadLetterId, str]] = field(default_factory=list)
    was_stopped: bool = False

    def add_failure(self, dead_letter: StoredDeadLetter, why: str) -> None:
        self.failed += 1
        if len(self.failures) < MAX_DESCRIBED:
            self.failures.append((dead_letter.id, why))


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How a replay runs; `on_progress` gets the number of marked dead letters after each, `limit` bounds those sent."""

    pacer: Pacer
    on_progress: Callable[[int], None] = lambda _: None
    limit: int | None = None


class Replay:
    """One run over some dead letters; `result` is up to date at all times."""

    def __init__(
        self,
        producer: ConfirmedProducer,
        topics: Topics,
        value_of: Callable[[StoredDeadLetter], Awaitable[bytes | None]],
        options: ReplayOptions,
        result: ReplayResult,
    ) -> None:
        self._producer = producer
        self._topics = topics
        self._value_of = value_of
        self._options = options
        self._limit = math.inf if options.limit is None else options.limit
        self._result = result
        self._max_in_flight = min(MAX_IN_FLIGHT, options.pacer.max_in_flight)
        self._in_flight = self._in_flight_bytes = 0
        self._one_done = asyncio.Event()

    async def run(self, dead_letters: AsyncIterator[StoredDeadLetter], stop: asyncio.Event) -> None:
        """Returns when every dead letter is marked or has failed, or when the limit is reached.

        When `stop` is set, it takes no more dead letters and finishes those in flight. Raises Fatal when the brokers do
        not confirm; the next run replays what was not marked.
        """
        try:
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(self._feed(group, dead_letters))
                stopping = group.create_task(stop.wait())
                await asyncio.wait([feeding, stopping], return_when=asyncio.FIRST_COMPLETED)
                self._result.was_stopped = not feeding.done()
                feeding.cancel()
                stopping.cancel()
        except BaseExceptionGroup as failures:
            # The first one cancelled the others, which failed with the same brokers.
            raise failures.exceptions[0] from failures

    async def _feed(self, group: asyncio.TaskGroup, dead_letters: AsyncIterator[StoredDeadLetter]) -> None:
        async for dead_letter in dead_letters:
            if dead_letter.origin is None:
                self._result.add_failure(dead_letter, "not written by grok-insights")
                continue
            if not await self._wait_for_room(dead_letter):
                return
            await asyncio.sleep(self._options.pacer.wait_s(time.monotonic()))
            self._in_flight += 1
            self._in_flight_bytes += _weight(dead_letter)
            group.create_task(self._replay(dead_letter))

    async def _wait_for_room(self, dead_letter: StoredDeadLetter) -> bool:
        """Returns False once the limit is reached. One that fails in flight does not count towards it."""
        while self._in_flight and not self._has_room(dead_letter):
            self._one_done.clear()
            await self._one_done.wait()
        return self._result.sent.total() < self._limit

    def _has_room(self, dead_letter: StoredDeadLetter) -> bool:
        """Only asked while something is in flight: one dead letter alone may be of any size."""
        return (
            self._in_flight < self._max_in_flight
            and self._in_flight_bytes + _weight(dead_letter) <= MAX_IN_FLIGHT_BYTES
            and self._result.sent.total() + self._in_flight < self._limit
        )

    async def _replay(self, dead_letter: StoredDeadLetter) -> None:
        try:
            record = replay_record(dead_letter, await self._value_of(dead_letter))
            sent = await send_confirmed(self._producer, self._topics.conversations, record)
        except Unprocessable as error:
            self._result.add_failure(dead_letter, error.detail)
        else:
            self._result.sent[dead_letter.reason] += 1
            await self._mark(dead_letter, Origin(sent.topic, sent.partition, sent.offset))
            self._result.marked += 1
            self._options.on_progress(self._result.marked)
        finally:
            self._in_flight -= 1
            self._in_flight_bytes -= _weight(dead_letter)
            self._one_done.set()

    async def _mark(self, dead_letter: StoredDeadLetter, sent_to: Origin) -> None:
        ledger = self._topics.replay_ledger
        try:
            await send_confirmed(self._producer, ledger, mark_record(dead_letter, datetime.now(UTC), sent_to))
        except Unprocessable as error:
            hint = f"check the topic {ledger}; the next run replays what has no mark"
            what = f"the dead letter {dead_letter.id} was sent and cannot be marked"
            raise Fatal(what, error.detail, hint) from error


def _weight(dead_letter: StoredDeadLetter) -> int:
    return dead_letter.truncated_from_bytes or dead_letter.size_bytes


async def send_confirmed(producer: ConfirmedProducer, topic: str, record: Outgoing) -> RecordMetadata:
    """Sends a record, and again after passing failures, for up to CONFIRM_WITHIN_S.

    Raises Unprocessable as it comes, and Fatal at once when the user may not write, or with the last failure after
    that time.
    """
    last = "no answer"

    async def attempt() -> RecordMetadata:
        nonlocal last
        try:
            return await producer.send(topic, key=record.key, value=record.value, headers=record.headers)
        except Retryable as error:
            last = error.detail
            if isinstance(error.__cause__, REFUSALS):
                hint = "grant the right, then run it again: it continues where it stopped"
                raise Fatal(f"this user may not write to {topic}", last, hint) from error
            raise

    try:
        async with asyncio.timeout(CONFIRM_WITHIN_S):
            return await retry(attempt, BACKOFF, lambda: True)
    except TimeoutError as error:
        hint = "check the brokers, then run it again: it continues where it stopped"
        raise Fatal("the brokers did not confirm a record", f"{last}, for {CONFIRM_WITHIN_S:g} s", hint) from error


@broker_errors_as_fatal()
async def replay_dead_letters(
    client_options: Mapping[str, Any],
    topics: Topics,
    wanted: Bounds,
    selection: Selection,
    options: ReplayOptions,
    result: ReplayResult,
    stop: asyncio.Event,
) -> None:
    """Replays the selected dead letters within the bounds, until `stop` is set; see Replay.run.

    Raises Fatal when the brokers do not answer, do not confirm or do not allow it.
    """
    originals = OffsetReader(client_options, topics)
    await originals.start()
    try:
        async with _producer(client_options) as producer, aclosing(read_dead_letters(client_options, wanted)) as found:
            await check_may_mark(producer, topics.replay_ledger)
            await forget_removed(producer, topics.replay_ledger, selection.ledger, wanted)
            replay = Replay(producer, topics, partial(original_value, originals), options, result)
            await replay.run(_selected(found, selection), stop)
    finally:
        await originals.stop()


async def _selected(found: AsyncIterator[StoredDeadLetter], selection: Selection) -> AsyncIterator[StoredDeadLetter]:
    """Yields foreign dead letters too, so that they are counted as failed."""
    async for dead_letter in found:
        if selection.eligibility(dead_letter) in (Eligibility.ELIGIBLE, Eligibility.FOREIGN):
            yield dead_letter


@asynccontextmanager
async def _producer(client_options: Mapping[str, Any]) -> AsyncIterator[ConfirmedProducer]:
    """Compresses like the worker's dead-letter producer: a record that arrived compressed may fit only so."""
    producer = ConfirmedProducer(client_options, compression="gzip", linger_ms=LINGER_MS)
    try:
        try:
            async with asyncio.timeout(CONFIRM_WITHIN_S):
                await producer.start()
        except TimeoutError as error:
            hint = CHECK_SERVERS
            raise Fatal("the broker cannot be used", "no connection", hint) from error
        yield producer
    finally:
        await producer.stop()


async def check_may_mark(producer: ConfirmedProducer, ledger_topic: str) -> None:
    """Raises Fatal when the ledger cannot be written, before anything is sent."""
    await send_confirmed(producer, ledger_topic, Outgoing(PROBE_KEY, None, []))


async def forget_removed(producer: ConfirmedProducer, ledger_topic: str, ledger: ReplayLedger, wanted: Bounds) -> None:
    """Removes the marks of dead letters that retention removed. Raises Fatal when the brokers do not confirm."""
    removed = ledger.before({partition.partition: beginning for partition, (beginning, _) in wanted.items()})
    for first in range(0, len(removed), MAX_IN_FLIGHT):
        keys = [str(dead_letter_id).encode() for dead_letter_id in removed[first : first + MAX_IN_FLIGHT]]
        await asyncio.gather(*(send_confirmed(producer, ledger_topic, Outgoing(key, None, [])) for key in keys))
