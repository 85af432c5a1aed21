"""One replay with its connections: the letters' topic, the producer, the ledger."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from schemas.errors import Fatal
from schemas.kafka import Topics
from streams.dlq.confirm import CONFIRM_WITHIN_S
from streams.dlq.ledger_upkeep import check_may_mark, forget_removed
from streams.dlq.letter import Letter
from streams.dlq.origin import Originals
from streams.dlq.reading import Bounds, letters
from streams.dlq.replay import Orders, Replay, Replayed
from streams.dlq.selection import Selection, Verdict
from streams.kafka.producer import ConfirmedProducer

#: Records that are sent within this time travel in one request.
LINGER_MS = 10


async def replay_letters(
    client_options: Mapping[str, Any],
    topics: Topics,
    bounds: Bounds,
    selection: Selection,
    orders: Orders,
    done: Replayed,
    stop: asyncio.Event,
) -> None:
    """Replays the selected letters within the bounds, until `stop` is set; `done` is right at every end.

    Raises Fatal when the brokers do not confirm or do not allow it, KafkaError when none answers.
    """
    originals = Originals(client_options, topics)
    try:
        async with _producer(client_options) as producer, aclosing(letters(client_options, bounds)) as found:
            await check_may_mark(producer, topics.replay_ledger)
            await forget_removed(producer, topics.replay_ledger, selection.ledger, bounds)
            await Replay(producer, topics, originals, orders, done).run(_wanted(found, selection), stop)
    finally:
        await originals.stop()


async def _wanted(found: AsyncIterator[Letter], selection: Selection) -> AsyncIterator[Letter]:
    """Foreign letters too, so that they are told as what cannot be replayed."""
    async for letter in found:
        if selection.verdict(letter) in (Verdict.WAITING, Verdict.FOREIGN):
            yield letter


@asynccontextmanager
async def _producer(client_options: Mapping[str, Any]) -> AsyncIterator[ConfirmedProducer]:
    """Compresses, as the letters' own producer does: a record that came compressed fits only so."""
    producer = ConfirmedProducer(client_options, compression="gzip", linger_ms=LINGER_MS)
    try:
        try:
            async with asyncio.timeout(CONFIRM_WITHIN_S):
                await producer.start()
        except TimeoutError as error:
            hint = "check KAFKA_BOOTSTRAP_SERVERS and that the broker runs"
            raise Fatal("the broker cannot be used", "no connection", hint) from error
        yield producer
    finally:
        await producer.stop()
