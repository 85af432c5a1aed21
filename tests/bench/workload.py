"""The conversations of every run: real texts, a share of them repeated, the same for the same seed."""

import asyncio
import gzip
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
from aiokafka import AIOKafkaProducer

from tests.bench.candidates.work import CONVERSATIONS, Conversation, text_key

KeyedBy = Literal["text", "id"]
_TEXTS = Path(__file__).parent / "data" / "texts.txt.gz"


@dataclass(frozen=True)
class Workload:
    """`records` conversations with unique IDs, of which the share `repeats` has a text that others have too.

    The texts are those from number `first_text` on: another number, other texts, which no cache has answers to.
    """

    records: int = 20_000
    repeats: float = 0.3
    seed: int = 1
    prefix: str = "bench"
    first_text: int = 0

    @property
    def distinct(self) -> int:
        return round(self.records * (1 - self.repeats))

    def conversations(self) -> list[Conversation]:
        source = random.Random(self.seed)
        distinct = [_text(self.first_text + number) for number in range(self.distinct)]
        texts = distinct + source.choices(distinct, k=self.records - self.distinct)
        source.shuffle(texts)
        return [Conversation(f"{self.prefix}-{number:06}", text) for number, text in enumerate(texts)]

    def bodies(self) -> bytes:
        """One JSON body a line, for the load generator."""
        return b"\n".join(map(msgspec.json.encode, self.conversations()))


async def produce(bootstrap_servers: str, conversations: list[Conversation], keyed_by: KeyedBy) -> None:
    """Returns when the broker has them all."""
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, enable_idempotence=True, linger_ms=20, max_batch_size=256 * 1024
    ) as producer:
        sent = []
        for conversation in conversations:
            key = text_key(conversation.text) if keyed_by == "text" else conversation.id
            sent.append(await producer.send(CONVERSATIONS, msgspec.json.encode(conversation), key=key.encode()))
        for confirmation in sent:
            await confirmation


async def feed(bootstrap_servers: str, conversations: Iterable[Conversation], rate: float) -> None:
    """Produces `rate` conversations a second, keyed by text, until they run out or it is cancelled."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True) as producer:
        began_s = time.monotonic()
        for number, conversation in enumerate(conversations):
            if (ahead_s := began_s + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(ahead_s)
            key = text_key(conversation.text).encode()
            await producer.send(CONVERSATIONS, msgspec.json.encode(conversation), key=key)


@cache
def _texts() -> list[str]:
    return gzip.decompress(_TEXTS.read_bytes()).decode().splitlines()


def _text(number: int) -> str:
    """The real texts, and beyond their number the same ones with a number behind them."""
    texts = _texts()
    again, index = divmod(number, len(texts))
    return f"{texts[index]} ({again})" if again else texts[index]
