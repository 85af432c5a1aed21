"""Computes a run's figures from its rows and calls, checks them, and picks insights to show. Pure."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from schemas.insight import USD_TICKS, Sentiment, Urgency
from schemas.outcome import OUTCOME_NAMES, OutcomeName

_URGENCIES: tuple[Urgency, ...] = get_args(Urgency)
#: A summary of this length fits a line or two and is informative.
_GOOD_LENGTH = range(20, 91)
#: A whole sentence without names of accounts, tags and addresses.
_PLAIN_SENTENCE = re.compile(r"(?!.*(?:[@#]|https?:)).*[^.][.!?]", re.DOTALL)
#: How intents begin that are never neutral, and the one of a text that asks for nothing.
_GRIEVANCES, _PRAISE, _NO_INTENT = ("complain", "report_", "threaten_"), "give_praise", "inform"
#: From here on a score leaves no doubt, and below the other one there is no feeling.
_CLEAR_SCORE, _NO_FEELING = 0.6, 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one row of `insights` that the figures need."""

    conversation_id: str
    outcome: OutcomeName
    reason: str | None
    received_at: datetime
    analysed_at: datetime
    text_key: str | None

    @property
    def seconds(self) -> float:
        """From the gateway's receipt to the end of the analysis, without the time to write the row."""
        return (self.analysed_at - self.received_at).total_seconds()

    @property
    def needed_answer(self) -> bool:
        """Whether its text needed an answer: from a call, or from an equal text."""
        return self.outcome in ("analysed", "cached")


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls to the provider, as counted by the stand-in (None without one) and by the workers."""

    by_standin: int | None
    by_workers: int

    @property
    def best_count(self) -> int:
        """The stand-in's count, or without one the workers' (0 with the local analyser)."""
        return self.by_workers if self.by_standin is None else self.by_standin


@dataclass(frozen=True, slots=True)
class Check:
    """One promise and whether it held; `detail` is a sentence with the numbers."""

    name: Literal["sum", "rows", "calls"]
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Figures:
    """`conversations` has all four outcomes; p50 and p95 are those of conversations with an insight, None without.

    `missing` conversations have no row; `unknown` rows belong to conversations that were never posted.
    """

    accepted: int
    missing: int
    unknown: int
    conversations: dict[OutcomeName, int]
    filter_reasons: dict[str, int]
    calls: Calls
    distinct_texts: int
    cost_usd_ticks: int
    p50_s: float | None
    p95_s: float | None

    @property
    def cost_usd(self) -> float:
        return self.cost_usd_ticks / USD_TICKS

    @property
    def checks(self) -> list[Check]:
        is_sum = self.accepted == sum(self.conversations.values())
        terms = " + ".join(f"{count} {name}" for name, count in self.conversations.items())
        # The table's primary key rules out two rows for one id.
        is_whole = self.missing == self.unknown == 0
        checks = [
            Check("sum", is_sum, f"{self.accepted} in {_equals(is_sum)} {terms}"),
            Check("rows", is_whole, f"rows of conversations: {self.missing} missing, {self.unknown} never posted"),
        ]
        calls = self.calls.by_standin
        if calls is not None:
            is_once = calls == self.distinct_texts
            detail = f"{calls} calls {_equals(is_once)} {self.distinct_texts} distinct texts that needed an answer"
            checks.append(Check("calls", is_once, detail))
        return checks

    @property
    def add_up(self) -> bool:
        return all(check.passed for check in self.checks)


def compute_figures(posted: Collection[str], rows: Sequence[Row], calls: Calls, cost_usd_ticks: int) -> Figures:
    """`posted` are the accepted ids, `rows` all rows of the database, and the cost is that of its table `calls`."""
    outcomes = Counter(row.outcome for row in rows)
    wanted, found = set(posted), {row.conversation_id for row in rows}
    seconds = sorted(row.seconds for row in rows if row.needed_answer)
    return Figures(
        accepted=len(posted),
        missing=len(wanted - found),
        unknown=len(found - wanted),
        conversations={name: outcomes[name] for name in OUTCOME_NAMES},
        filter_reasons=dict(Counter(row.reason or "" for row in rows if row.outcome == "filtered").most_common()),
        calls=calls,
        distinct_texts=len({row.text_key for row in rows if row.needed_answer}),
        cost_usd_ticks=cost_usd_ticks,
        p50_s=percentile(seconds, 50),
        p95_s=percentile(seconds, 95),
    )


def percentile(ascending: Sequence[float], percent: float) -> float | None:
    """Returns the nearest-rank percentile, or None without values."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def _equals(is_equal: bool) -> str:
    return "=" if is_equal else "is not"


@dataclass(frozen=True, slots=True)
class Example:
    """One insight with the names of the HTTP API."""

    id: str
    source: str | None
    sentiment: Sentiment
    sentiment_score: float
    urgency: Urgency
    topics: Sequence[str]
    intent: str
    summary: str


def pick_examples(insights: Iterable[Example], count: int) -> list[Example]:
    """Returns at most `count`, clear ones first, each adding the most sentiments, urgencies, intents and sources.

    The same insights give the same examples, whatever their order. The most urgent come first, then the most negative.
    """
    candidates = sorted(insights, key=_preference)
    picked: list[Example] = []
    shown: set[str | None] = set()
    while candidates and len(picked) < count:
        best = max(candidates, key=lambda insight: (_is_clear(insight), len(_traits(insight) - shown)))
        picked.append(best)
        shown |= _traits(best)
        candidates = [insight for insight in candidates if insight.summary != best.summary]
    return sorted(picked, key=lambda insight: (_urgency_order(insight), insight.sentiment_score, insight.id))


def _is_clear(insight: Example) -> bool:
    """Returns whether it explains itself: a plain sentence, a topic, and a score that suits the intent.

    The local analyser is most often wrong where these disagree, as in a cheerful request for a refund.
    """
    score = insight.sentiment_score
    if insight.intent.startswith(_GRIEVANCES):
        agrees = insight.sentiment == "negative" and score <= -_CLEAR_SCORE
    elif insight.intent == _PRAISE:
        agrees = insight.sentiment == "positive" and score >= _CLEAR_SCORE
    else:
        agrees = insight.sentiment == "neutral" and abs(score) < _NO_FEELING and insight.intent != _NO_INTENT
    is_plain = len(insight.summary) in _GOOD_LENGTH and _PLAIN_SENTENCE.fullmatch(insight.summary) is not None
    return agrees and is_plain and bool(insight.topics)


def _traits(insight: Example) -> set[str | None]:
    return {insight.sentiment, insight.urgency, insight.intent, insight.source}


def _preference(insight: Example) -> tuple[object, ...]:
    """Urgent ones first, and long summaries, which say more."""
    length = len(insight.summary)
    return (length not in _GOOD_LENGTH, _urgency_order(insight), -length, insight.id)


def _urgency_order(insight: Example) -> int:
    return -_URGENCIES.index(insight.urgency)
