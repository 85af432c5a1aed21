"""Sends letters back into `conversations`: each confirmed, then marked in the ledger, a bounded number at a time."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from schemas.errors import Fatal, Unprocessable
from schemas.kafka import Origin, Topics
from streams.dlq.confirm import Sender, confirmed
from streams.dlq.ledger import mark_record
from streams.dlq.letter import Letter, LetterId, outgoing
from streams.dlq.pace import Pace

MAX_IN_FLIGHT = 256
MAX_IN_FLIGHT_BYTES = 64 * 1024 * 1024
#: More than these are counted, not named.
MAX_NAMED = 20


class Values(Protocol):
    """The whole value of a letter; see streams.dlq.origin.Originals."""

    async def value_of(self, letter: Letter) -> bytes | None: ...


@dataclass(slots=True)
class Replayed:
    """What a replay did: letters whose records are confirmed, by reason, how many of them are marked, and those that
    could not be replayed, the first ones with why."""

    sent: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    failed: int = 0
    named: list[tuple[LetterId, str]] = field(default_factory=list)
    was_stopped: bool = False

    def add_failed(self, letter: Letter, why: str) -> None:
        """One letter that cannot be replayed."""
        self.failed += 1
        if len(self.named) < MAX_NAMED:
            self.named.append((letter.id, why))


@dataclass(frozen=True, slots=True)
class Orders:
    """How a replay goes: at most `limit` letters are sent; `told` hears how many are done, after each."""

    pace: Pace
    told: Callable[[int], None]
    limit: int | None = None


class Replay:
    """One run over some letters, written down in `done` as it goes."""

    def __init__(self, sender: Sender, topics: Topics, values: Values, orders: Orders, done: Replayed) -> None:
        self._sender = sender
        self._topics = topics
        self._values = values
        self._orders = orders
        self._done = done
        self._max_in_flight = min(MAX_IN_FLIGHT, orders.pace.most_at_once)
        self._in_flight = self._in_flight_bytes = 0
        self._freed = asyncio.Event()

    async def run(self, letters: AsyncIterator[Letter], stop: asyncio.Event) -> None:
        """Returns when every letter is replayed and marked, or known not to be replayable, or the limit is reached.

        When `stop` is set, no more letters are taken, and those under way are finished. Raises Fatal when the brokers
        do not confirm: what was not marked is replayed by the next run.
        """
        try:
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(self._feed(group, letters))
                stopping = group.create_task(stop.wait())
                await asyncio.wait([feeding, stopping], return_when=asyncio.FIRST_COMPLETED)
                self._done.was_stopped = not feeding.done()
                feeding.cancel()
                stopping.cancel()
        except BaseExceptionGroup as failures:
            # The first one cancelled the others; they say the same of the same brokers.
            raise failures.exceptions[0] from failures

    async def _feed(self, group: asyncio.TaskGroup, letters: AsyncIterator[Letter]) -> None:
        async for letter in letters:
            if letter.origin is None:
                self._done.add_failed(letter, "not written by grok-insights")
                continue
            if not await self._is_within_limit():
                return
            await self._room_for(letter)
            await asyncio.sleep(self._orders.pace.wait_s(time.monotonic()))
            self._in_flight += 1
            self._in_flight_bytes += _weight(letter)
            group.create_task(self._replay(letter))

    async def _is_within_limit(self) -> bool:
        """Waits for those under way while they may use the limit up: one that fails makes room for another."""
        if self._orders.limit is None:
            return True
        while self._in_flight and self._done.sent.total() + self._in_flight >= self._orders.limit:
            await self._one_freed()
        return self._done.sent.total() < self._orders.limit

    async def _room_for(self, letter: Letter) -> None:
        """A letter alone always has room, however large it is."""
        while self._in_flight and not self._fits(letter):
            await self._one_freed()

    def _fits(self, letter: Letter) -> bool:
        fits = self._in_flight_bytes + _weight(letter) <= MAX_IN_FLIGHT_BYTES
        return fits and self._in_flight < self._max_in_flight

    async def _one_freed(self) -> None:
        self._freed.clear()
        await self._freed.wait()

    def _free(self, letter: Letter) -> None:
        self._in_flight -= 1
        self._in_flight_bytes -= _weight(letter)
        self._freed.set()

    async def _replay(self, letter: Letter) -> None:
        try:
            sent_to = await self._send(letter)
        except Unprocessable as error:
            self._done.add_failed(letter, error.detail)
        else:
            self._done.sent[letter.reason] += 1
            await self._mark(letter, sent_to)
            self._done.marked += 1
            self._orders.told(self._done.marked)
        finally:
            self._free(letter)

    async def _send(self, letter: Letter) -> Origin:
        record = outgoing(letter, await self._values.value_of(letter))
        sent = await confirmed(self._sender, self._topics.conversations, **record._asdict())
        return Origin(sent.topic, sent.partition, sent.offset)

    async def _mark(self, letter: Letter, sent_to: Origin) -> None:
        key, value = mark_record(letter, datetime.now(UTC), sent_to)
        ledger = self._topics.replay_ledger
        try:
            await confirmed(self._sender, ledger, key=key, value=value, headers=[])
        except Unprocessable as error:
            hint = f"look at the topic {ledger}; what has no mark is sent again by the next run"
            raise Fatal(f"the letter {letter.id} was sent and cannot be marked", error.detail, hint) from error


def _weight(letter: Letter) -> int:
    return letter.truncated_from_bytes or letter.size_bytes
