"""Queries for insights: parses their filters and cursors, and reads pages from Postgres, always for one tenant."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import asyncpg
import msgspec

from schemas.conversation import MAX_ID_CHARS, MAX_SOURCE_CHARS
from schemas.errors import Rejected, Retryable
from schemas.insight import MAX_TOPIC_CHARS, Insight, Sentiment, Urgency
from schemas.instant import Instant
from schemas.outcome import OUTCOME_NAMES, OutcomeName

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
READ_TIMEOUT_S = 5.0
RETRY_AFTER_S = 5.0
POOL_MAX_CONNECTIONS = 10

_QUERIES = Path(__file__).parents[1] / "postgres" / "queries"
_SELECT_INSIGHT = (_QUERIES / "select_insight.sql").read_text()
_SELECT_INSIGHTS_PAGE = (_QUERIES / "select_insights_page.sql").read_text()
_INSIGHTS_TABLE_EXISTS = (_QUERIES / "insights_table_exists.sql").read_text()

T = TypeVar("T")
#: The server is gone, starting, stopping, full or not migrated, or the pool is closing.
_UNAVAILABLE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,
)


#: Filter values by the names in CONDITIONS; `since` is inclusive, `until` exclusive, both in UTC.
InsightFilter = Mapping[str, Any]


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last item of a page. The order is by `occurred_at`, then by `id`, both descending."""

    occurred_at: Instant
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]

    def encode(self) -> str:
        """Returns the token: base64url without padding, which needs no escaping in a URL."""
        in_utc = Cursor(self.occurred_at.astimezone(UTC), self.id)
        return base64.urlsafe_b64encode(msgspec.json.encode(in_utc)).rstrip(b"=").decode()


def decode_cursor(token: str) -> Cursor:
    """Raises Rejected (400, `invalid_cursor`) for anything but a token from `Cursor.encode`."""
    try:
        if len(token) <= MAX_CURSOR_CHARS:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            cursor = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=Cursor)
            if cursor.encode() == token and "\0" not in cursor.id:
                return cursor
    except (ValueError, OverflowError, msgspec.DecodeError):
        pass
    raise Rejected("invalid_cursor", "cursor must be a next_cursor from an earlier page", field="cursor", status=400)


def parse_filter(query: Mapping[str, str]) -> InsightFilter:
    """Returns the filters of a query string. Raises Rejected (400) that names the first invalid one."""
    return {name: _PARSERS[name](name, query[name]) for name in CONDITIONS if name in query}


def storable_text(name: str, value: str, max_chars: int) -> str:
    """Returns the value. Raises Rejected (400) for an empty or too long one, and for what Postgres cannot store."""
    if not 0 < len(value) <= max_chars:
        raise _invalid(name, f"must have 1 to {max_chars} characters")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise _invalid(name, "must not contain NUL or a lone surrogate")
    return value


def _invalid(name: str, detail: str) -> Rejected:
    return Rejected("invalid_parameter", detail, field=name, status=400)


def _parse_time(name: str, value: str) -> datetime:
    # An unescaped + arrives as a space.
    try:
        return msgspec.convert(value.replace(" ", "+"), Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise _invalid(name, "must be an RFC 3339 timestamp, such as 2026-01-31T12:00:00Z") from error


def _parse_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise _invalid(name, f"must be one of {', '.join(choices)}")
    return value


_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "since": _parse_time,
    "until": _parse_time,
    "sentiment": partial(_parse_choice, choices=get_args(Sentiment)),
    "topic": partial(storable_text, max_chars=MAX_TOPIC_CHARS),
    "urgency": partial(_parse_choice, choices=get_args(Urgency)),
    "source": partial(storable_text, max_chars=MAX_SOURCE_CHARS),
    "outcome": partial(_parse_choice, choices=OUTCOME_NAMES),
}


class DatabaseUnavailable(Retryable):
    """Postgres did not answer."""


class InsightRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of the table `insights` with the field names of the event in the topic `insights`.

    JSON leaves out absent fields. The cost is in ticks of 10^-10 USD.
    """

    id: str
    outcome: OutcomeName
    occurred_at: datetime
    received_at: datetime
    analysed_at: datetime
    prompt_tokens: int
    completion_tokens: int
    cost_usd_ticks: int
    reason: str | None = None
    insight: Insight | None = None
    source: str | None = None
    text_key: str | None = None
    analysis_version: str | None = None
    model: str | None = None


_SAME_NAME = tuple(name for name in InsightRecord.__struct_fields__ if name not in ("id", "insight"))
_INSIGHT_FIELDS = tuple(name for name in Insight.__struct_fields__ if name not in ("topics", "extra"))


async def open_pool(database_url: str) -> asyncpg.Pool:
    """Returns a pool that connects on first use. Raises ValueError for an invalid URL."""
    return await asyncpg.create_pool(
        database_url,
        min_size=0,
        max_size=POOL_MAX_CONNECTIONS,
        timeout=READ_TIMEOUT_S,
        command_timeout=READ_TIMEOUT_S,
        server_settings={"application_name": "grok-insights gateway"},
    )


class PostgresInsightReader:
    """Every method raises DatabaseUnavailable when Postgres does not answer within READ_TIMEOUT_S."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def conversation(self, tenant: str, conversation_id: str) -> InsightRecord | None:
        """Returns the record of one conversation, None if it is unknown or pending."""
        row = await _within_timeout(self._pool.fetchrow(_SELECT_INSIGHT, tenant, conversation_id))
        return None if row is None else _record_from_row(dict(row))

    async def insights(
        self, tenant: str, wanted: InsightFilter, after: Cursor | None, limit: int
    ) -> list[InsightRecord]:
        """Returns at most `limit` records that follow the cursor, newest first."""
        where, parameters = sql_condition(tenant, wanted)
        if after is not None:
            where += f" AND (occurred_at, conversation_id) < (${len(parameters) + 1}, ${len(parameters) + 2})"
            parameters += [after.occurred_at, after.id]
        parameters.append(limit)
        sql = _SELECT_INSIGHTS_PAGE.format(where=where, limit=f"${len(parameters)}")
        return [_record_from_row(dict(row)) for row in await _within_timeout(self._pool.fetch(sql, *parameters))]

    async def check(self) -> None:
        """Checks that Postgres answers and has the table."""
        if not await _within_timeout(self._pool.fetchval(_INSIGHTS_TABLE_EXISTS)):
            raise DatabaseUnavailable("the table insights is missing: run `grok-insights migrate`")


def sql_condition(tenant: str, wanted: InsightFilter) -> tuple[str, list[Any]]:
    """Returns the SQL condition and its parameters. The first parameter is always the tenant."""
    conditions, parameters = ["tenant = $1"], [tenant]
    for name, value in wanted.items():
        parameters.append(value)
        conditions.append(CONDITIONS[name].format(len(parameters)))
    return " AND ".join(conditions), parameters


async def _within_timeout(query: Awaitable[T]) -> T:
    """Raises DatabaseUnavailable for errors of the server and the connection; any other error is a defect."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await query
    except _UNAVAILABLE as error:
        raise DatabaseUnavailable("the database does not answer", retry_after_s=RETRY_AFTER_S) from error


def _record_from_row(row: Mapping[str, Any]) -> InsightRecord:
    return InsightRecord(id=row["conversation_id"], insight=_insight(row), **{name: row[name] for name in _SAME_NAME})


def _insight(row: Mapping[str, Any]) -> Insight | None:
    if row["sentiment"] is None:
        return None
    return Insight(
        topics=tuple(row["topics"] or ()),
        extra=msgspec.json.decode(row["extra"]) if row["extra"] is not None else {},  # asyncpg returns JSON as text
        **{name: row[name] for name in _INSIGHT_FIELDS},
    )
