"""One replay with its connections: the letters' topic, the producer, the ledger."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from schemas.errors import Fatal
from streams.dlq.filters import Filters
from streams.dlq.ledger import Ledger, make_ledger
from streams.dlq.letter import Letter
from streams.dlq.origin import Originals
from streams.dlq.pace import Pace
from streams.dlq.reading import Bounds, letters
from streams.dlq.replay import CONFIRM_WITHIN_S, Replay, Replayed
from streams.sinks.producer import ConfirmedProducer


async def replay_letters(
    client_options: Mapping[str, Any],
    bounds: Bounds,
    filters: Filters,
    ledger: Ledger,
    pace: Pace,
    told: Callable[[int], None],
) -> Replayed:
    """Replays the letters within the bounds that match and have no mark; `told` hears how many are done.

    Raises Fatal when the brokers do not confirm, KafkaError when none answers.
    """
    await make_ledger(client_options)
    originals = Originals(client_options)
    try:
        async with _producer(client_options) as producer, aclosing(letters(client_options, bounds)) as found:
            replay = Replay(producer, originals, pace, told)
            await replay.run(_wanted(found, filters, ledger))
            return replay.done
    finally:
        await originals.stop()


async def _wanted(found: AsyncIterator[Letter], filters: Filters, ledger: Ledger) -> AsyncIterator[Letter]:
    async for letter in found:
        if filters.match(letter) and ledger.mark_of(letter) is None:
            yield letter


@asynccontextmanager
async def _producer(client_options: Mapping[str, Any]) -> AsyncIterator[ConfirmedProducer]:
    """Compresses, as the letters' own producer does: a record that came compressed fits only so."""
    producer = ConfirmedProducer(client_options, compression="gzip")
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
