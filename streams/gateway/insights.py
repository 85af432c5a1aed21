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
import structlog

from schemas.conversation import MAX_ID_CHARS, MAX_SOURCE_CHARS
from schemas.errors import Fatal, Rejected, Retryable
from schemas.insight import MAX_TOPIC_CHARS, Insight, Sentiment, Urgency
from schemas.instant import Instant, time_ago
from schemas.outcome import OUTCOME_NAMES, OutcomeName
from streams.postgres.database import parse_database_url
from streams.postgres.errors import CONNECTION_ERRORS, SqlFailure, classify

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
POOL_CLOSE_TIMEOUT_S = 1.0
#: The gateway does not wait longer for the database at its start: it accepts conversations without it.
FIRST_ANSWER_WITHIN_S = 1.5

_QUERIES = Path(__file__).parents[1] / "postgres" / "queries"
_SELECT_INSIGHT = (_QUERIES / "select_insight.sql").read_text()
_SELECT_INSIGHTS_PAGE = (_QUERIES / "select_insights_page.sql").read_text()
#: Fails when the newest columns or the right to read them are missing.
_CHECK_TABLE = "SELECT metadata, repairs FROM insights LIMIT 0"
_NOT_MIGRATED = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)

T = TypeVar("T")

log = structlog.get_logger()


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
    wanted = {name: _PARSERS[name](name, query[name]) for name in CONDITIONS if name in query}
    if "since" in wanted and "until" in wanted and wanted["since"] > wanted["until"]:
        raise _invalid("since", "since must not be later than until")
    return wanted


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
    try:
        # An unescaped + arrives as a space.
        return time_ago(value, datetime.now(UTC)) or msgspec.convert(value.replace(" ", "+"), Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        detail = "must be a duration before now, such as 2h, or an RFC 3339 timestamp, such as 2026-01-31T12:00:00Z"
        raise _invalid(name, detail) from error


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
    """Postgres did not answer, or refused the login or the query."""


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
    metadata: dict[str, Any] | None = None
    repairs: tuple[str, ...] = ()


_DIFFERENT = ("id", "insight", "metadata", "repairs")
_SAME_NAME = tuple(name for name in InsightRecord.__struct_fields__ if name not in _DIFFERENT)
_INSIGHT_FIELDS = tuple(name for name in Insight.__struct_fields__ if name not in ("topics", "extra"))


class PostgresInsightReader:
    """Queries raise DatabaseUnavailable when Postgres does not answer within READ_TIMEOUT_S, or refuses to."""

    def __init__(self, database_url: str) -> None:
        """Raises Fatal for a URL that cannot be used."""
        self._database = parse_database_url(database_url)
        self._pool: asyncpg.Pool | None = None

    async def start(self) -> None:
        """Connects if the database answers at once; later queries connect otherwise.

        Raises Fatal for a failure that waiting cannot fix. A missing table or column may be created meanwhile.
        """
        self._pool = await self._database.pool(
            "grok-insights gateway", max_size=POOL_MAX_CONNECTIONS, command_timeout_s=READ_TIMEOUT_S
        )
        try:
            async with asyncio.timeout(FIRST_ANSWER_WITHIN_S):
                await self._pool.execute(_CHECK_TABLE)
        except CONNECTION_ERRORS as error:
            failure = self._database.failure(error)
            if isinstance(failure, Fatal) and not isinstance(error, _NOT_MIGRATED):
                self._pool.terminate()
                raise failure from error
            log.warning("database_unavailable", why=self._database.describe(error))

    async def stop(self) -> None:
        """Lets queries end for POOL_CLOSE_TIMEOUT_S, then drops all connections."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), POOL_CLOSE_TIMEOUT_S)
            except TimeoutError:
                self._pool.terminate()

    async def conversation(self, tenant: str, conversation_id: str) -> InsightRecord | None:
        """Returns the record of one conversation, None if it is unknown or pending."""
        row = await self._within_timeout(lambda pool: pool.fetchrow(_SELECT_INSIGHT, tenant, conversation_id))
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
        rows = await self._within_timeout(lambda pool: pool.fetch(sql, *parameters))
        return [_record_from_row(dict(row)) for row in rows]

    async def check(self) -> None:
        """Raises DatabaseUnavailable with the reason when Postgres does not answer, or refuses to read the table."""
        try:
            await self._within_timeout(lambda pool: pool.execute(_CHECK_TABLE))
        except DatabaseUnavailable as failure:
            raise DatabaseUnavailable(self._database.describe(failure.__cause__ or failure)) from failure

    async def _within_timeout(self, query: Callable[[asyncpg.Pool], Awaitable[T]]) -> T:
        """Raises DatabaseUnavailable for errors of the server and the connection; any other error is a defect.

        The client does not get the reason, which names roles and hosts.
        """
        assert self._pool is not None, "start comes first"
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await query(self._pool)
        except CONNECTION_ERRORS as error:
            if isinstance(error, asyncpg.PostgresError) and classify(error) is SqlFailure.ROW:
                raise
            raise DatabaseUnavailable("the database does not answer", retry_after_s=RETRY_AFTER_S) from error


def sql_condition(tenant: str, wanted: InsightFilter) -> tuple[str, list[Any]]:
    """Returns the SQL condition and its parameters. The first parameter is always the tenant."""
    conditions, parameters = ["tenant = $1"], [tenant]
    for name, value in wanted.items():
        parameters.append(value)
        conditions.append(CONDITIONS[name].format(len(parameters)))
    return " AND ".join(conditions), parameters


def _record_from_row(row: Mapping[str, Any]) -> InsightRecord:
    return InsightRecord(
        id=row["conversation_id"],
        insight=_insight(row),
        metadata=_json(row.get("metadata")),  # columns that may be missing before the migration
        repairs=tuple(row.get("repairs") or ()),
        **{name: row[name] for name in _SAME_NAME},
    )


def _json(value: str | None) -> Any:
    """asyncpg returns JSON as text."""
    return None if value is None else msgspec.json.decode(value)


def _insight(row: Mapping[str, Any]) -> Insight | None:
    if row["sentiment"] is None:
        return None
    return Insight(
        topics=tuple(row["topics"] or ()),
        extra=_json(row["extra"]) or {},
        **{name: row[name] for name in _INSIGHT_FIELDS},
    )
