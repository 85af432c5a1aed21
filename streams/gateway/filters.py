"""The filters of the list of insights: read from a query string, turned into SQL. One truth for all who list or count.

Values are always bound, never written into the SQL.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec

from schemas.conversation import MAX_SOURCE_CHARS
from schemas.errors import Rejected
from schemas.insight import MAX_TOPIC_CHARS, Sentiment, Urgency
from schemas.instant import Instant
from schemas.outcome import OUTCOME_NAMES

#: Each filter's condition; `{}` is where the number of the bound parameter goes.
CONDITIONS: Mapping[str, str] = {
    "since": "occurred_at >= ${}",
    "until": "occurred_at < ${}",
    "sentiment": "sentiment = ${}",
    "topic": "${} = ANY(topics)",
    "urgency": "urgency = ${}",
    "source": "source = ${}",
    "outcome": "outcome = ${}",
}


@dataclass(frozen=True, slots=True)
class InsightFilter:
    """The values that were asked for, by name of CONDITIONS: `since` is inclusive, `until` exclusive, both UTC."""

    values: Mapping[str, Any] = field(default_factory=dict)

    def where(self, tenant: str) -> tuple[str, list[Any]]:
        """The condition and its parameters; the tenant is always the first of them."""
        conditions, parameters = ["tenant = $1"], [tenant]
        for name, value in self.values.items():
            parameters.append(value)
            conditions.append(CONDITIONS[name].format(len(parameters)))
        return " AND ".join(conditions), parameters


def read_filter(query: Mapping[str, str]) -> InsightFilter:
    """The filters among the parameters of a query. Raises Rejected (400) naming the first wrong parameter."""
    return InsightFilter({name: _READERS[name](name, query[name]) for name in CONDITIONS if name in query})


def storable_text(name: str, value: str, max_chars: int) -> str:
    """The value as Postgres can compare it. Raises Rejected (400): empty, too long, NUL or half of a surrogate pair."""
    if not 0 < len(value) <= max_chars:
        raise _invalid(name, f"1 to {max_chars} characters are possible")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise _invalid(name, "it holds a character that no text can have")
    return value


def _invalid(name: str, detail: str) -> Rejected:
    return Rejected("invalid_parameter", detail, field=name, status=400)


def _time(name: str, value: str) -> datetime:
    # A + that was not escaped arrives as a space.
    try:
        return msgspec.convert(value.replace(" ", "+"), Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise _invalid(name, "a time is written like 2026-01-31T12:00:00Z (RFC 3339)") from error


def _one_of(choices: tuple[str, ...]) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if value not in choices:
            raise _invalid(name, f"one of {', '.join(choices)} is possible")
        return value

    return read


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    "since": _time,
    "until": _time,
    "sentiment": _one_of(get_args(Sentiment)),
    "topic": lambda name, value: storable_text(name, value, MAX_TOPIC_CHARS),
    "urgency": _one_of(get_args(Urgency)),
    "source": lambda name, value: storable_text(name, value, MAX_SOURCE_CHARS),
    "outcome": _one_of(OUTCOME_NAMES),
}
