"""The conversations of one run, with the right outcome of each."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from agents.text_key import owner_partition, text_key
from schemas.kafka import DEFAULT_TENANT

PARTITIONS = 2
#: The stand-in's safety check stops texts with this word.
REFUSED = "unspeakable"
WORDS = ("parcel", "refund", "invoice", "login", "password", "delivery", "charge", "account", "late", "broken")
GOOD, REPEATED, SMALL_TALK, REFUSALS, BROKEN = 16, 6, 3, 3, 3


@dataclass(frozen=True, slots=True)
class Item:
    """One record and its right outcome; `text` is None for a record that cannot be decoded, which has no row."""

    id: str
    partition: int
    value: bytes
    text: str | None
    outcomes: frozenset[str]

    @property
    def is_dead(self) -> bool:
        return "dead" in self.outcomes

    @property
    def is_asked(self) -> bool:
        """Whether its text goes to the provider."""
        return self.text is not None and "filtered" not in self.outcomes

    @property
    def is_away(self) -> bool:
        """Whether it must be rehomed first."""
        if self.text is None or not self.is_asked:
            return False
        return owner_partition(text_key(DEFAULT_TENANT, self.text).encode(), PARTITIONS) != self.partition


def workload(run: str, source: random.Random) -> list[Item]:
    """In a shuffled order, with ids of this run alone."""
    answered, filtered, dead = frozenset({"analysed", "cached"}), frozenset({"filtered"}), frozenset({"dead"})
    distinct = [f"{' '.join(source.sample(WORDS, 5))} number {number}" for number in range(GOOD)]
    texts: list[tuple[str | None, frozenset[str]]] = [
        *((text, answered) for text in distinct + source.choices(distinct, k=REPEATED)),
        *((text, filtered) for text in ["Hello!"] * SMALL_TALK),
        *((f"{REFUSED} {text}", dead) for text in distinct[:REFUSALS]),
        *((None, dead) for _ in range(BROKEN)),
    ]
    source.shuffle(texts)
    return [
        Item(f"{run}-{number}", source.randrange(PARTITIONS), _value(f"{run}-{number}", text), text, outcomes)
        for number, (text, outcomes) in enumerate(texts)
    ]


def occurrences(items: Sequence[Item]) -> dict[str, int]:
    """How many records take each step, at least, in a life without a crash."""
    away = sum(item.is_away for item in items)
    answers = len({item.text for item in items if item.is_asked and not item.is_dead})
    return {
        "decode": len(items) - BROKEN + away,
        "rehome": away,
        "call": answers,
        "changelog": answers,
        "shard": answers,
        "row": len(items) - BROKEN,
        "event": len(items) - BROKEN - REFUSALS,
        "dead_letter": BROKEN + REFUSALS,
        "finish": len(items) + away,
        "commit": 3,
    }


def _value(id_: str, text: str | None) -> bytes:
    if text is None:
        return f"no conversation: {id_}".encode()
    return json.dumps({"id": id_, "text": text}).encode()
