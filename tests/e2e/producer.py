"""A foreign producer: keys by conversation id, so that most records arrive outside their text's owner partition."""

import json
import random
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from tests.support.processes import Service

WORDS = ("parcel", "refund", "invoice", "login", "password", "delivery", "charge", "account", "late", "broken")


def texts_with_repeats(count: int, repeats: float, seed: int) -> list[str]:
    """Returns `count` texts, in a shuffled order, of which the share `repeats` repeats an earlier one."""
    source = random.Random(seed)
    distinct = [f"{' '.join(source.sample(WORDS, 6))} number {n}" for n in range(round(count * (1 - repeats)))]
    texts = distinct + source.choices(distinct, k=count - len(distinct))
    source.shuffle(texts)
    return texts


async def produce(service: Service, texts: Sequence[str], first: int = 0) -> None:
    """Returns when the broker has confirmed all records; ids are conv-<number>."""
    async with AIOKafkaProducer(bootstrap_servers=service.bootstrap_servers, acks="all", linger_ms=20) as producer:
        sent = []
        for number, text in enumerate(texts, start=first):
            value = json.dumps({"id": f"conv-{number}", "text": text}).encode()
            sent.append(await producer.send(service.topics.conversations, value, key=f"conv-{number}".encode()))
        for confirmation in sent:
            await confirmation
