"""Rows: results into Postgres, a batch in one statement, idempotent by key."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import structlog

from agents.analyst import RowResults
from agents.decode import Job
from agents.limits.retry import Backoff
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, Retryable, Unprocessable
from schemas.result import ConversationResult
from streams.postgres.errors import SqlFailure, classify

COMMAND_TIMEOUT_S = 20
#: The server ends a statement, since it does not notice that a client has gone while the statement waits for a lock,
#: and would go on holding the rows it has. Later than deadlock_timeout (1 s), so that the server tells a deadlock from
#: a locked row.
LOCK_TIMEOUT_MS = 1_500
#: Below COMMAND_TIMEOUT_S, so that the client gives up only on a server that does not answer.
STATEMENT_TIMEOUT_MS = 15_000
#: A frozen server accepts a connection and never answers. The next attempt finds it thawed; a longer one would, too.
CONNECT_TIMEOUT_S = 5
#: A database that comes back is found within the cap, however long it was away.
OUTAGE_BACKOFF = Backoff(base_s=0.1, cap_s=2.0)
#: The other session of a conflict is through by then; jitter alone keeps the two from meeting again.
CONFLICT_BACKOFF = Backoff(base_s=0.02, cap_s=0.5)
_UPSERT = (Path(__file__).parents[1] / "postgres" / "queries" / "upsert_insights.sql").read_text()

#: What may be over at the next attempt to start.
_PASSING = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

log = structlog.get_logger()


class RowSink:
    """See agents.analyst.Rows; as many batches at once as are asked for, each on a connection of its own."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        #: Of one connection, which is for `ping`: it must be answered while all writers wait.
        self._pool: asyncpg.Pool | None = None
        self._idle: list[_Writer] = []
        self._writers: list[_Writer] = []

    async def start(self) -> None:
        """Raises Retryable while the database cannot be reached, Fatal when it has no table or refuses the login."""
        try:
            self._pool = await self._connect_pool()
        except ValueError:  # also asyncpg's ClientConfigurationError, whose words may quote the address
            raise Fatal("DATABASE_URL is not a valid PostgreSQL URL", "", "it starts with postgresql://") from None
        except asyncpg.UndefinedTableError as error:
            hint = "create it with: grok-insights migrate"
            raise Fatal("the database has no table insights", "its migrations were not run", hint) from error
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            raise Fatal("the database cannot be used", type(error).__name__, "check DATABASE_URL") from error
        except _PASSING as error:
            raise Retryable(f"Postgres: {type(error).__name__}") from error

    async def stop(self) -> None:
        """Drops all connections without a word: a server that hangs would not answer."""
        for writer in self._writers:
            writer.close()
        if self._pool is not None:
            self._pool.terminate()

    async def write(self, jobs: Sequence[Job]) -> RowResults:
        """Returns when each row is committed, refused by itself, blocked, or no longer wanted, however long it takes.

        Committed also means that a newer row of the conversation was there already. Raises Fatal when the tables are
        not as they must be.
        """
        if not self._idle:
            writer = _Writer(self._database_url)
            self._writers.append(writer)
            self._idle.append(writer)
        writer = self._idle.pop()
        try:
            return await writer.write(jobs)
        except BaseException:
            writer.close()  # cancelled half-way, the connection is in no state to be used again
            raise
        finally:
            self._idle.append(writer)

    async def ping(self) -> None:
        """Raises when the database does not answer a query."""
        if self._pool is None:
            raise Retryable("not connected yet")
        await self._pool.execute("SELECT 1")

    async def _connect_pool(self) -> asyncpg.Pool:
        pool = await asyncpg.create_pool(
            self._database_url, min_size=1, max_size=1, command_timeout=COMMAND_TIMEOUT_S, timeout=CONNECT_TIMEOUT_S
        )
        try:
            await pool.execute("SELECT FROM insights LIMIT 0")
        except BaseException:
            pool.terminate()
            raise
        return pool


class _Writer:
    """One connection, which is replaced as often as needed; writes one batch at a time."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._connection: asyncpg.Connection | None = None
        self._attempt = 0
        self._failing_since_s: float | None = None
        self._logged_error = ""

    async def write(self, jobs: Sequence[Job]) -> RowResults:
        """A batch that fails for one of its rows is halved until that row is alone."""
        written = RowResults([], [], [])
        parts = deque([list(jobs)])
        while parts:
            # What failed goes to the end: the rest must not wait for a locked row.
            part = [job for job in parts.popleft() if job.is_wanted]
            if part:
                parts += await self._attempt_part(part, written)
        return written

    def close(self) -> None:
        """Drops the connection without a word."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _attempt_part(self, part: list[Job], written: RowResults) -> list[list[Job]]:
        """One statement; returns what is left to be written."""
        try:
            connection = await self._connected()
        except Exception as error:  # whatever keeps us from connecting is no fault of the rows
            await self._wait(error, OUTAGE_BACKOFF)
            return [part]
        try:
            await connection.execute(_UPSERT, _json_rows(part))
        except Exception as error:  # the edge of the loop: classified, and never dropped
            return await self._after(error, part, written)
        self._works()
        written.stored.extend(part)
        return []

    async def _after(self, error: Exception, part: list[Job], written: RowResults) -> list[list[Job]]:
        match classify(error):
            case SqlFailure.CONFLICT:
                await self._wait(error, CONFLICT_BACKOFF)
                return [part]
            case SqlFailure.PASSING:
                self.close()
                await self._wait(error, OUTAGE_BACKOFF)
                return [part]
            case SqlFailure.SCHEMA:
                hint = "bring the tables up to date with: grok-insights migrate"
                raise Fatal("the database does not take rows", type(error).__name__, hint) from error
            case SqlFailure.TOO_SLOW:
                if isinstance(error, TimeoutError):  # ours, so the server did not end the statement: it may be frozen
                    self.close()
                if len(part) > 1:  # without a pause: the statement has waited long enough
                    return _halves(part)
                written.blocked.extend(part)
                return []
            case SqlFailure.ROW:
                self._works()
                if len(part) > 1:
                    return _halves(part)
                written.refused.append((part[0], _refusal(error)))
                return []

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await _connect(self._database_url)
        return self._connection

    async def _wait(self, error: Exception, backoff: Backoff) -> None:
        if self._failing_since_s is None:
            self._failing_since_s = time.monotonic()
        if self._logged_error != (name := type(error).__name__):  # not each attempt: an outage may be long
            self._logged_error = name
            log.warning("postgres_write_failed", error=name)
        await asyncio.sleep(backoff.delay_s(self._attempt, random.random))
        self._attempt += 1

    def _works(self) -> None:
        if self._failing_since_s is not None:
            failed_s = round(time.monotonic() - self._failing_since_s, 1)
            log.info("postgres_write_works_again", failed_s=failed_s, attempts=self._attempt)
        self._attempt, self._failing_since_s, self._logged_error = 0, None, ""


async def _connect(database_url: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(database_url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S)
    try:
        # Not as parameters of the connection: poolers such as PgBouncer refuse those.
        limits = f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET statement_timeout = {STATEMENT_TIMEOUT_MS}"
        await connection.execute(limits, timeout=CONNECT_TIMEOUT_S)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _refusal(error: Exception) -> Exception:
    if isinstance(error, asyncpg.PostgresError):
        return Unprocessable(DeadLetterReason.UNSTORABLE, f"Postgres refuses the row: {type(error).__name__}")
    return error


def _halves(part: list[Job]) -> list[list[Job]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]]


def _json_rows(jobs: Sequence[Job]) -> str:
    """The one parameter of queries/upsert_insights.sql."""
    return orjson.dumps([_row(job.result) for job in jobs]).decode()


def _row(result: ConversationResult) -> dict[str, Any]:
    """Column -> value; columns that are left out are NULL."""
    row: dict[str, Any] = {
        "tenant": result.tenant,
        "conversation_id": result.id,
        "outcome": result.outcome,
        "reason": result.reason,
        "source": result.source,
        "occurred_at": result.occurred_at,
        "received_at": result.received_at,
        "analysed_at": result.analysed_at,
        "text_key": result.text_key,
        "analysis_version": result.analysis_version,
        "model": result.model,
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "cost_usd_ticks": result.cost_usd_ticks,
        "origin_topic": result.origin.topic,
        "origin_partition": result.origin.partition,
        "origin_offset": result.origin.offset,
    }
    insight = result.insight
    if insight is not None:
        row |= {
            "sentiment": insight.sentiment,
            "sentiment_score": insight.sentiment_score,
            "topics": insight.topics,
            "intent": insight.intent,
            "urgency": insight.urgency,
            "summary": insight.summary,
            "action_needed": insight.action_needed,
            "confidence": insight.confidence,
            "language": insight.language,
            "extra": insight.extra or None,
        }
    return row
