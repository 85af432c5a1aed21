"""The analyser that costs nothing and asks nobody: VADER for sentiment, keyword tables for the rest."""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from agents import keywords
from schemas.insight import MAX_SUMMARY_CHARS, Answer, Insight, Sentiment, Usage

#: No model of a provider: rows and events must not pass for Grok's.
LOCAL_MODEL = "local-vader"
#: VADER's authors draw the lines between negative, neutral and positive here.
_NEUTRAL_BELOW = 0.05
#: Shares of negative and positive words from which a text is called mixed.
_MIXED_FROM = 0.2
#: A conversation shows what it is about early on; VADER's time grows with the square of the words.
_MAX_READ_CHARS = 8_000
_MAX_SCORED_CHARS = 2_000
#: Who speaks for the company: their courtesy says nothing of the customer's mood.
_STAFF_ROLES = frozenset({"agent", "assistant", "bot", "operator", "support", "system"})

_SENTENCE = re.compile(r".+?[.!?](?=\s|$)|.+")
_ACTIONS = frozenset({"inform", "give_praise"})


class LocalInsights:
    """Canonical text to Insight, deterministic; the lexicon is loaded once per object."""

    def __init__(self) -> None:
        self._vader = SentimentIntensityAnalyzer()

    def insight(self, text: str) -> Insight:
        """Confidence is low on purpose: words are counted, nothing is understood."""
        said = _said_by_customer(text[:_MAX_READ_CHARS])
        lowered = said.lower()
        scores = self._vader.polarity_scores(said[:_MAX_SCORED_CHARS])
        intent = keywords.intent(lowered)
        return Insight(
            sentiment=_sentiment(scores),
            sentiment_score=scores["compound"],
            topics=keywords.topics(lowered),
            intent=intent,
            urgency=keywords.urgency(lowered),
            summary=_first_sentence(said),
            action_needed=intent not in _ACTIONS,
            confidence=0.3,
            language="en" if keywords.is_english(lowered) else "und",
        )


class LocalAnalyser:
    """Implements agents.analyser.Analyser; an answer takes about a millisecond of this thread."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._insights = LocalInsights()
        self._now = now
        self._version = hashlib.sha256(f"{LOCAL_MODEL}:{keywords.RULES_VERSION}".encode()).hexdigest()[:16]

    @property
    def version(self) -> str:
        """Changes with RULES_VERSION."""
        return self._version

    async def analyse(self, text: str) -> Answer:
        """Never fails, and is free."""
        return Answer(self._insights.insight(text), Usage(), LOCAL_MODEL, self._now())


def _sentiment(scores: dict[str, float]) -> Sentiment:
    if min(scores["neg"], scores["pos"]) >= _MIXED_FROM:
        return "mixed"
    if abs(scores["compound"]) < _NEUTRAL_BELOW:
        return "neutral"
    return "positive" if scores["compound"] > 0 else "negative"


def _said_by_customer(text: str) -> str:
    """The messages without their roles, and without the staff's where anyone else speaks."""
    if "\n" not in text:
        return text
    turns = [line.partition(": ") for line in text.split("\n")]
    customer = [said for role, _, said in turns if role.lower() not in _STAFF_ROLES]
    return "\n".join(customer or [said for _, _, said in turns])


def _first_sentence(said: str) -> str:
    sentence = _SENTENCE.match(said.lstrip())
    return sentence[0][:MAX_SUMMARY_CHARS] if sentence else ""
