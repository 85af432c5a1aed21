"""Insight, the checked answer about one conversation as consumers receive it, and Usage, what it cost."""

from typing import Annotated, Any, Literal

import msgspec

from schemas.instant import Instant

#: Only the local analyser says `undetermined`, of languages that it does not know.
Sentiment = Literal["negative", "neutral", "positive", "mixed", "undetermined"]
Urgency = Literal["low", "medium", "high", "critical"]

MAX_TOPICS = 5
MAX_TOPIC_CHARS = 64
MAX_INTENT_CHARS = 128
MAX_SUMMARY_CHARS = 300
MAX_LANGUAGE_CHARS = 35  # RFC 5646 section 4.4.1 asks applications to hold at least 35 characters
#: 1 USD = 10^10 ticks, the unit in which xAI bills (`usage.cost_in_usd_ticks`).
USD_TICKS = 10**10


class Insight(msgspec.Struct, frozen=True):
    """The field `insight` of a result; no topic carries it alone.

    `sentiment_score` is from -1 to 1, `confidence` from 0 to 1, `language` a BCP 47 tag, `extra` any other fields.
    """

    sentiment: Sentiment
    sentiment_score: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    topics: tuple[str, ...]
    intent: str
    urgency: Urgency
    summary: str
    action_needed: bool
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    language: str
    extra: dict[str, Any] = {}


class Usage(msgspec.Struct, frozen=True):
    """Tokens and cost of one call; completion tokens include reasoning (total minus prompt), cost is in ticks."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd_ticks: int = 0


class Answer(msgspec.Struct, frozen=True):
    """An insight with its provenance: what the analysers return and the table `answers` keeps.

    `usage` is that of the call that gave it, which ended at `analysed_at`.
    """

    insight: Insight
    usage: Usage
    model: str
    analysed_at: Instant
