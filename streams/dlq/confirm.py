"""One record sent and confirmed, or the reason why it cannot be."""

import asyncio
from typing import Protocol

from aiokafka.structs import RecordMetadata

from agents.limits.retry import Backoff, retry
from schemas.errors import Fatal, Retryable
from streams.dlq.broker_errors import REFUSALS
from streams.kafka.producer import Headers

#: A broker that restarts is back by then; longer, and the person should look.
CONFIRM_WITHIN_S = 30.0
BACKOFF = Backoff(base_s=0.2, cap_s=30.0)


class Sender(Protocol):
    """Returns when the brokers have the record; see streams.kafka.producer.ConfirmedProducer."""

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> RecordMetadata: ...


async def confirmed(
    sender: Sender, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers
) -> RecordMetadata:
    """Tries again while the failure is passing, for CONFIRM_WITHIN_S in all.

    Raises Unprocessable as it comes; Fatal at once when the user may not write, and with the last failure when the
    time is over.
    """
    last = "no answer"

    async def attempt() -> RecordMetadata:
        nonlocal last
        try:
            return await sender.send(topic, key=key, value=value, headers=headers)
        except Retryable as error:
            last = error.detail
            if isinstance(error.__cause__, REFUSALS):
                hint = "give this user the right to, then run it again: it goes on where it stopped"
                raise Fatal(f"this user may not write to {topic}", last, hint) from error
            raise

    try:
        async with asyncio.timeout(CONFIRM_WITHIN_S):
            return await retry(attempt, BACKOFF, lambda: True)
    except TimeoutError as error:
        hint = "look at the brokers, then run it again: it goes on where it stopped"
        raise Fatal("the brokers do not confirm", f"{last}, for {CONFIRM_WITHIN_S:g} s", hint) from error
