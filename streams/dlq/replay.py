"""Sends letters back into `conversations`: each confirmed, then marked in the ledger, a bounded number at a time."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from aiokafka.structs import RecordMetadata

from schemas.errors import Fatal, Unprocessable
from schemas.topics import Origin, Topic
from streams.dlq.ledger import LEDGER_TOPIC, mark_record
from streams.dlq.letter import Letter, LetterId, outgoing
from streams.dlq.pace import Pace
from streams.pipeline.attempts import until_done
from streams.sinks.producer import Headers

MAX_IN_FLIGHT = 256
MAX_IN_FLIGHT_BYTES = 64 * 1024 * 1024
#: A broker that restarts is back by then; longer, and the person should look.
CONFIRM_WITHIN_S = 30.0
#: More than these are counted, not named.
MAX_NAMED = 20

T = TypeVar("T")


class Sender(Protocol):
    """Returns when the brokers have the record; see streams.sinks.producer.ConfirmedProducer."""

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> RecordMetadata: ...


class Values(Protocol):
    """The whole value of a letter; see streams.dlq.origin.Originals."""

    async def value_of(self, letter: Letter) -> bytes | None: ...


@dataclass(slots=True)
class Replayed:
    """What a replay did: letters marked, by reason, and those that could not be replayed, the first ones with why."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    named: list[tuple[LetterId, str]] = field(default_factory=list)

    def add_failed(self, letter: Letter, why: str) -> None:
        """One letter that cannot be replayed."""
        self.failed += 1
        if len(self.named) < MAX_NAMED:
            self.named.append((letter.id, why))


class Replay:
    """One run over some letters. `told` hears of the whole count so far, after each letter."""

    def __init__(self, sender: Sender, values: Values, pace: Pace, told: Callable[[int], None]) -> None:
        self._sender = sender
        self._values = values
        self._pace = pace
        self._told = told
        self._in_flight = self._in_flight_bytes = 0
        self._freed = asyncio.Event()
        self.done = Replayed()

    async def run(self, letters: AsyncIterator[Letter]) -> None:
        """Returns when every letter is replayed and marked, or known not to be replayable.

        Raises Fatal when the brokers do not confirm in time: what was not marked is replayed by the next run.
        """
        try:
            async with asyncio.TaskGroup() as group:
                async for letter in letters:
                    if letter.origin is None:
                        self.done.add_failed(letter, "not written by grok-insights")
                        continue
                    await self._turn(letter)
                    group.create_task(self._replay(letter))
        except BaseExceptionGroup as failures:
            # The first one cancelled the others; they say the same of the same brokers.
            raise failures.exceptions[0] from failures

    async def _turn(self, letter: Letter) -> None:
        """Waits until the letter's turn has come and there is room for it, then takes the room."""
        await asyncio.sleep(self._pace.wait_s(time.monotonic()))
        while not self._has_room(letter):
            self._freed.clear()
            await self._freed.wait()
        self._in_flight += 1
        self._in_flight_bytes += _weight(letter)

    def _has_room(self, letter: Letter) -> bool:
        """A letter alone always has, however large it is."""
        fits = self._in_flight_bytes + _weight(letter) <= MAX_IN_FLIGHT_BYTES
        return self._in_flight == 0 or (fits and self._in_flight < MAX_IN_FLIGHT)

    def _free(self, letter: Letter) -> None:
        self._in_flight -= 1
        self._in_flight_bytes -= _weight(letter)
        self._freed.set()

    async def _replay(self, letter: Letter) -> None:
        try:
            sent_to = await self._send(letter)
        except Unprocessable as error:
            self.done.add_failed(letter, error.detail)
        else:
            await self._mark(letter, sent_to)
            self.done.counts[letter.reason] += 1
            self._told(self.done.counts.total())
        finally:
            self._free(letter)

    async def _send(self, letter: Letter) -> Origin:
        record = outgoing(letter, await self._values.value_of(letter))
        sent = await _confirmed(
            lambda: self._sender.send(Topic.CONVERSATIONS, key=record.key, value=record.value, headers=record.headers)
        )
        return Origin(sent.topic, sent.partition, sent.offset)

    async def _mark(self, letter: Letter, sent_to: Origin) -> None:
        key, value = mark_record(letter, datetime.now(UTC), sent_to)
        await _confirmed(lambda: self._sender.send(LEDGER_TOPIC, key=key, value=value, headers=[]))


def _weight(letter: Letter) -> int:
    return letter.truncated_from_bytes or letter.size_bytes


async def _confirmed(send: Callable[[], Awaitable[T]]) -> T:
    """Tries again while the failure is passing, for CONFIRM_WITHIN_S in all."""
    try:
        async with asyncio.timeout(CONFIRM_WITHIN_S):
            return await until_done(send, lambda: True)
    except TimeoutError as error:
        hint = "look at the brokers, then run it again: it goes on where it stopped"
        raise Fatal("the brokers do not confirm", f"nothing for {CONFIRM_WITHIN_S:g} s", hint) from error
