"""Filters and cursors of a query for insights: parsed from HTTP, turned into SQL. Pure."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, get_args

import msgspec

from schemas.conversation import MAX_ID_CHARS, MAX_SOURCE_CHARS
from schemas.errors import Rejected
from schemas.insight import MAX_TOPIC_CHARS, Sentiment, Urgency
from schemas.instant import Instant
from schemas.outcome import OUTCOME_NAMES

#: The SQL condition of each filter; `{}` is replaced by the number of its bound parameter.
CONDITIONS: Mapping[str, str] = {
    "since": "occurred_at >= ${}",
    "until": "occurred_at < ${}",
    "sentiment": "sentiment = ${}",
    "topic": "${} = ANY(topics)",
    "urgency": "urgency = ${}",
    "source": "source = ${}",
    "outcome": "outcome = ${}",
}
#: Room for an ID of 256 characters, up to 6 bytes each in JSON, and a time, as base64.
MAX_CURSOR_CHARS = 4096


@dataclass(frozen=True, slots=True)
class InsightFilter:
    """Filter values by the names in CONDITIONS.

    `since` is inclusive, `until` exclusive, both in UTC.
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    def where(self, tenant: str) -> tuple[str, list[Any]]:
        """Returns the SQL condition and its parameters. The first parameter is always the tenant."""
        conditions, parameters = ["tenant = $1"], [tenant]
        for name, value in self.values.items():
            parameters.append(value)
            conditions.append(CONDITIONS[name].format(len(parameters)))
        return " AND ".join(conditions), parameters


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last item of a page. The order is by `occurred_at`, then by `id`, both descending."""

    occurred_at: Instant
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]

    def encode(self) -> str:
        """Returns the token: base64url without padding, which needs no escaping in a URL."""
        in_utc = Cursor(self.occurred_at.astimezone(UTC), self.id)
        return base64.urlsafe_b64encode(msgspec.json.encode(in_utc)).rstrip(b"=").decode()


_cursor_decoder = msgspec.json.Decoder(Cursor)


def decode_cursor(token: str) -> Cursor:
    """Raises Rejected (400, `invalid_cursor`) for anything but a token from `Cursor.encode`."""
    try:
        cursor = _cursor_decoder.decode(_decode_base64(token))
        if cursor.encode() == token and "\0" not in cursor.id:
            return cursor
    except (ValueError, OverflowError, msgspec.DecodeError, binascii.Error):
        pass
    raise Rejected("invalid_cursor", "cursor must be a next_cursor from an earlier page", field="cursor", status=400)


def parse_filter(query: Mapping[str, str]) -> InsightFilter:
    """Returns the filters of a query string.

    Raises Rejected (400) that names the first invalid one.
    """
    return InsightFilter({name: _PARSERS[name](name, query[name]) for name in CONDITIONS if name in query})


def storable_text(name: str, value: str, max_chars: int) -> str:
    """Returns the value if Postgres can store it. Raises Rejected (400) otherwise.

    Rejects an empty or too long value, NUL and lone surrogates.
    """
    if not 0 < len(value) <= max_chars:
        raise _invalid(name, f"must have 1 to {max_chars} characters")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise _invalid(name, "must not contain NUL or a lone surrogate")
    return value


def _decode_base64(token: str) -> bytes:
    if len(token) > MAX_CURSOR_CHARS:
        raise ValueError("too long")
    return base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))


def _invalid(name: str, detail: str) -> Rejected:
    return Rejected("invalid_parameter", detail, field=name, status=400)


def _parse_time(name: str, value: str) -> datetime:
    # An unescaped + arrives as a space.
    try:
        return msgspec.convert(value.replace(" ", "+"), Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise _invalid(name, "must be an RFC 3339 timestamp, such as 2026-01-31T12:00:00Z") from error


def _one_of(choices: tuple[str, ...]) -> Callable[[str, str], str]:
    def parse(name: str, value: str) -> str:
        if value not in choices:
            raise _invalid(name, f"must be one of {', '.join(choices)}")
        return value

    return parse


_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "since": _parse_time,
    "until": _parse_time,
    "sentiment": _one_of(get_args(Sentiment)),
    "topic": lambda name, value: storable_text(name, value, MAX_TOPIC_CHARS),
    "urgency": _one_of(get_args(Urgency)),
    "source": lambda name, value: storable_text(name, value, MAX_SOURCE_CHARS),
    "outcome": _one_of(OUTCOME_NAMES),
}
