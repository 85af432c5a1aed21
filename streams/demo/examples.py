"""Picks a few insights that show how different they can be. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from schemas.insight import Sentiment, Urgency

_URGENCIES: tuple[Urgency, ...] = get_args(Urgency)
#: A summary that fits a line and says something.
_GOOD_LENGTH = range(20, 91)


@dataclass(frozen=True, slots=True)
class Example:
    """One insight with the names of the HTTP API."""

    id: str
    source: str | None
    sentiment: Sentiment
    sentiment_score: float
    urgency: Urgency
    topics: tuple[str, ...]
    intent: str
    summary: str


def pick_examples(insights: Iterable[Example], count: int) -> list[Example]:
    """At most `count`: each the one that adds most sentiments, urgencies, intents and sources not yet shown.

    The same insights give the same examples, whatever their order; the most urgent come first,
    of equally urgent ones the least happy.
    """
    left = sorted(insights, key=_liking)
    picked: list[Example] = []
    seen: set[str | None] = set()
    while left and len(picked) < count:
        best = max(left, key=lambda insight: len(_traits(insight) - seen))
        picked.append(best)
        seen |= _traits(best)
        left = [insight for insight in left if insight.summary != best.summary]
    return sorted(picked, key=_liking)


def _traits(insight: Example) -> set[str | None]:
    return {insight.sentiment, insight.urgency, insight.intent, insight.source}


def _liking(insight: Example) -> tuple[object, ...]:
    fits = len(insight.summary) in _GOOD_LENGTH
    return (not fits, -_URGENCIES.index(insight.urgency), insight.sentiment_score, insight.id)
