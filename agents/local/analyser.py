"""LocalAnalyser: a free analyser without network calls, by rules over VADER's lexicon and tables of phrases."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from agents.analyser import OnUnanswered, ignore_call
from agents.local import rules, vocabulary
from agents.prefilter.small_talk import is_small_talk
from schemas.insight import Answer, Insight, Usage

#: The model name in rows and events, which must not be mistaken for one of Grok's.
LOCAL_MODEL = "local-vader"
#: What is read of a longer text: half of it from the beginning, half from the end.
_MAX_CHARS = 8_000
#: Roles that speak for the company: their courtesy says nothing about the customer's sentiment.
_STAFF_ROLES = frozenset({"agent", "assistant", "bot", "operator", "support", "system"})
_ROLES = _STAFF_ROLES | {"user", "customer", "client", "caller"}
#: Nothing is asked for.
_PASSIVE_INTENTS = frozenset({"inform", "give_praise"})
_URGENT = frozenset({"high", "critical"})


class LocalInsights:
    """Derives an Insight from a canonical text, deterministically. Each object loads the lexicon once."""

    def __init__(self) -> None:
        vader = SentimentIntensityAnalyzer()
        words: dict[str, float] = {w: v for w, v in vader.lexicon.items() if w not in vocabulary.NO_FEELING}
        pictograms = {sign: sum(words.get(w, 0.0) for w in name.split()) for sign, name in vader.emojis.items()}
        self._valences = words | pictograms | vocabulary.FEELINGS

    def insight(self, text: str) -> Insight:
        """Returns the insight; its confidence is low because phrases are counted, not understood.

        A text in another language is `undetermined`, and a person must read it. The summary quotes the text.
        """
        messages, is_answered = _customer_messages(_bounded(text))
        parts = [part for message in messages for part in rules.split_sentences(message)]
        sentences = [rules.read_sentence(part, self._valences) for part in parts or [" ".join(messages)]]
        summary, urgency = rules.summary(sentences), rules.urgency(sentences)
        language = rules.language(sentences, self._valences)
        if language == "other":
            return Insight("undetermined", 0.0, (), "undetermined", urgency, summary, True, 0.1, "und")
        sentiment, score = rules.sentiment(sentences)
        intent = rules.intent(sentences, sentiment)
        return Insight(
            sentiment=sentiment,
            sentiment_score=score,
            topics=rules.topics(sentences),
            intent=intent,
            urgency=urgency,
            summary=summary,
            action_needed=urgency in _URGENT or not (is_answered or intent in _PASSIVE_INTENTS),
            confidence=0.3,
            language="en" if language == "en" else "und",
        )


class LocalAnalyser:
    """Implements agents.analyser.Analyser; an answer blocks the event loop for up to a few milliseconds."""

    is_paid = False

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._insights = LocalInsights()
        self._now = now
        self._version = hashlib.sha256(f"{LOCAL_MODEL}:{vocabulary.RULES_VERSION}".encode()).hexdigest()[:16]

    @property
    def version(self) -> str:
        """The analysis version, which changes with RULES_VERSION."""
        return self._version

    async def analyse(self, text: str, on_unanswered: OnUnanswered = ignore_call) -> Answer:
        """Returns the answer, which costs nothing; never raises."""
        return Answer(self._insights.insight(text), Usage(), LOCAL_MODEL, self._now())


def _bounded(text: str) -> str:
    """Returns at most _MAX_CHARS: of a longer text the beginning, which tells the subject, and how it ended."""
    if len(text) <= _MAX_CHARS:
        return text
    between = "\n" if "\n" in text else " "
    head, tail = text[: _MAX_CHARS // 2], text[-_MAX_CHARS // 2 :]
    return head + between + (tail.partition(between)[2] or tail)


def _customer_messages(text: str) -> tuple[list[str], bool]:
    """Returns the messages without roles, and whether staff spoke last but for courtesies.

    Staff messages are left out unless there are no others.
    """
    customer: list[str] = []
    staff: list[str] = []
    is_answered = False
    lines = text.split("\n")
    for line in lines:
        role, colon, message = line.partition(": ")
        if not colon or (len(lines) == 1 and role.lower() not in _ROLES):
            message = line
        if role.lower() in _STAFF_ROLES:
            staff.append(message)
            is_answered = True
        else:
            customer.append(message)
            is_answered = is_answered and (is_small_talk(message) or _is_scrap(message))
    return customer or staff, is_answered


def _is_scrap(message: str) -> bool:
    """Returns whether it is too short to ask for more, such as "ok cool"."""
    return len(message.split()) < 3 and "?" not in message
