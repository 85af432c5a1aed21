"""An analyser and a cache in memory; both are proven against the real ones in tests/contracts."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from schemas.insight import Answer, Insight, Usage
from schemas.kafka import Origin
from schemas.result import ConversationResult

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def an_insight(**fields: object) -> Insight:
    values: dict[str, object] = {
        "sentiment": "negative",
        "sentiment_score": -0.5,
        "topics": ("refund", "billing"),
        "intent": "refund_request",
        "urgency": "high",
        "summary": "Charged twice, wants the money back.",
        "action_needed": True,
        "confidence": 0.9,
        "language": "en",
    }
    return Insight(**{**values, **fields})  # type: ignore[arg-type]


def an_answer(**fields: object) -> Answer:
    return Answer(insight=an_insight(**fields), usage=Usage(100, 20, 5_000), model="some-model", analysed_at=NOON)


def a_result(**fields: object) -> ConversationResult:
    values: dict[str, object] = {
        "tenant": "default",
        "id": "c-1",
        "outcome": "analysed",
        "occurred_at": NOON,
        "received_at": NOON,
        "analysed_at": NOON,
        "origin": Origin("conversations", 1, 2),
        "insight": an_insight(extra={"a": [1, "b"]}),
    }
    return ConversationResult(**{**values, **fields})  # type: ignore[arg-type]


async def at_once() -> None:
    """Stands for a lease that is held."""


class FakeAnalyser:
    """Answers when its gate is open; raises the given errors first, one a call; remembers what it was asked."""

    version = "v1"

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self.failures = list(failures)
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def analyse(self, text: str) -> Answer:
        self.asked.append(text)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return an_answer()


class MemoryCache:
    """See agents.cache.AnswerCache."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}

    def get(self, key: str) -> Answer | None:
        return self.answers.get(key)

    async def put(self, key: str, answer: Answer) -> None:
        self.answers[key] = answer
