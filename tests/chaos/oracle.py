"""The oracle creates every posted conversation: its content is a function of its ID. Pure."""

import hashlib
import json
import random
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from agents.text_key import owner_partition, text_key
from schemas.insight import Insight
from schemas.kafka import DEFAULT_TENANT
from tests.support.standin_answers import StandinAnswers

_WORDS = (
    *("parcel", "refund", "invoice", "login", "password", "delivery", "charge", "account", "late", "broken"),
    *("missing", "twice", "wrong", "great", "thanks", "order", "cancel", "angry", "urgent", "support"),
)
_SMALL_TALK = ("Hello!", "thanks", "ok", "Good morning!", "!!!!")
PARTITIONS = 4
#: How far back a repeated text was first posted, at most.
_REPEATS_WITHIN = 400
HANG_MARKER = "qqhangs"
REFUSED_MARKER = "qqrefused"


class Kind(StrEnum):
    """The outcome that a conversation must have."""

    FRESH = "fresh"  # analysed, or cached where a repeat of it came first
    REPEAT = "repeat"  # an earlier one's text again
    FILTERED = "filtered"
    HANGS = "hangs"  # as fresh, once the stand-in releases it
    REFUSED = "refused"  # dead, with a row
    BROKEN = "broken"  # dead, without one: its value is not JSON


_SHARES = ((Kind.BROKEN, 0.015), (Kind.REFUSED, 0.005), (Kind.HANGS, 0.002), (Kind.FILTERED, 0.03), (Kind.REPEAT, 0.3))


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation; `text` is canonical already."""

    number: int
    id: str
    kind: Kind
    text: str

    @property
    def value(self) -> bytes:
        """The record's value as a raw producer writes it."""
        if self.kind is Kind.BROKEN:
            return b"{" + self.id.encode()
        return json.dumps({"id": self.id, "text": self.text}).encode()

    @property
    def text_key(self) -> str:
        """The text key that the service must find."""
        return text_key(DEFAULT_TENANT, self.text)

    @property
    def digest(self) -> str:
        """The text's name in the stand-in's journal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class Oracle:
    """The cases of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._prefix = f"c{seed:08x}-"
        # A world is judged many times.
        self.case = lru_cache(maxsize=None)(self._case)
        self._insight_of = lru_cache(maxsize=None)(StandinAnswers().insight)

    def number_of(self, conversation_id: str) -> int | None:
        """None for an id that is not the oracle's."""
        prefix, number = conversation_id[: len(self._prefix)], conversation_id[len(self._prefix) :]
        return int(number) if prefix == self._prefix and number.isdecimal() else None

    def insight(self, case: Case) -> Insight:
        """The stand-in's answer for the text, always the same."""
        return self._insight_of(case.text)

    def _case(self, number: int) -> Case:
        source = random.Random(f"{self.seed}:{number}")
        kind = _kind(source.random())
        if kind is Kind.REPEAT:
            first = self._first_of(number, source)
            if first is not None:
                return Case(number, self._id(number), kind, first.text)
            kind = Kind.FRESH
        return Case(number, self._id(number), kind, self._text(number, kind, source))

    def _first_of(self, number: int, source: random.Random) -> Case | None:
        """An earlier fresh one; chosen ones that are not fresh themselves make this one fresh."""
        earlier = number - source.randint(1, _REPEATS_WITHIN)
        if earlier < 0 or _kind(random.Random(f"{self.seed}:{earlier}").random()) is not Kind.FRESH:
            return None
        return self.case(earlier)

    def _text(self, number: int, kind: Kind, source: random.Random) -> str:
        if kind is Kind.FILTERED:
            return source.choice(_SMALL_TALK)
        words = source.sample(_WORDS, 6)
        if kind is Kind.HANGS:
            # All owned by one partition, so that offsets advance in the others.
            texts = (" ".join([*words, HANG_MARKER, f"case {self.seed:08x} {number} {n}"]) for n in range(1_000))
            return next(text for text in texts if _owner_of(text) == 0)
        marker = [REFUSED_MARKER] if kind is Kind.REFUSED else []
        return " ".join([*words, *marker, f"case {self.seed:08x} {number}"])

    def _id(self, number: int) -> str:
        return f"{self._prefix}{number}"


def _kind(drawn: float) -> Kind:
    for kind, share in _SHARES:
        drawn -= share
        if drawn < 0:
            return kind
    return Kind.FRESH


def _owner_of(text: str) -> int:
    return owner_partition(text_key(DEFAULT_TENANT, text).encode(), PARTITIONS)
