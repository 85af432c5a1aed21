"""LocalAnalyser: a free analyser without network calls, with VADER for sentiment and keyword tables for the rest."""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from agents.local import keywords
from schemas.insight import MAX_SUMMARY_CHARS, Answer, Insight, Sentiment, Usage

#: The model name in rows and events, which must not be mistaken for one of Grok's.
LOCAL_MODEL = "local-vader"
#: The threshold that VADER's authors recommend for neutral.
_NEUTRAL_BELOW = 0.05
#: A text is mixed when both its negative and its positive share reach this.
_MIXED_FROM = 0.2
#: The beginning of a conversation shows its subject. VADER's time grows with the square of the number of words.
_MAX_READ_CHARS = 8_000
_MAX_SCORED_CHARS = 2_000
#: Roles that speak for the company: their courtesy says nothing about the customer's sentiment.
_STAFF_ROLES = frozenset({"agent", "assistant", "bot", "operator", "support", "system"})

_SENTENCE = re.compile(r".+?[.!?](?=\s|$)|.+")
_ACTIONS = frozenset({"inform", "give_praise"})


class LocalInsights:
    """Derives an Insight from a canonical text, deterministically. Each object loads the lexicon once."""

    def __init__(self) -> None:
        self._vader = SentimentIntensityAnalyzer()

    def insight(self, text: str) -> Insight:
        """Returns the insight; its confidence is low because keywords are counted, not understood."""
        customer_text = _customer_text(text[:_MAX_READ_CHARS])
        lowered = customer_text.lower()
        scores = self._vader.polarity_scores(customer_text[:_MAX_SCORED_CHARS])
        intent = keywords.intent(lowered)
        return Insight(
            sentiment=_sentiment(scores),
            sentiment_score=scores["compound"],
            topics=keywords.topics(lowered),
            intent=intent,
            urgency=keywords.urgency(lowered),
            summary=_first_sentence(customer_text),
            action_needed=intent not in _ACTIONS,
            confidence=0.3,
            language="en" if keywords.is_english(lowered) else "und",
        )


class LocalAnalyser:
    """Implements agents.analyser.Analyser; an answer blocks the event loop for about a millisecond."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._insights = LocalInsights()
        self._now = now
        self._version = hashlib.sha256(f"{LOCAL_MODEL}:{keywords.RULES_VERSION}".encode()).hexdigest()[:16]

    @property
    def version(self) -> str:
        """The analysis version, which changes with RULES_VERSION."""
        return self._version

    async def analyse(self, text: str) -> Answer:
        """Returns the answer, which costs nothing; never raises."""
        return Answer(self._insights.insight(text), Usage(), LOCAL_MODEL, self._now())


def _sentiment(scores: dict[str, float]) -> Sentiment:
    if min(scores["neg"], scores["pos"]) >= _MIXED_FROM:
        return "mixed"
    if abs(scores["compound"]) < _NEUTRAL_BELOW:
        return "neutral"
    return "positive" if scores["compound"] > 0 else "negative"


def _customer_text(text: str) -> str:
    """Returns the messages without roles, and without staff messages unless there are no others."""
    if "\n" not in text:
        return text
    turns = [line.partition(": ") for line in text.split("\n")]
    customer = [turn for role, _, turn in turns if role.lower() not in _STAFF_ROLES]
    return "\n".join(customer or [turn for _, _, turn in turns])


def _first_sentence(text: str) -> str:
    sentence = _SENTENCE.match(text.lstrip())
    return sentence[0][:MAX_SUMMARY_CHARS] if sentence else ""
