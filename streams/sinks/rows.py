"""Rows and paid calls into Postgres: a batch in one statement, idempotent by key."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec
import orjson
import structlog

from agents.analyst import RowResults
from agents.decode import Job
from agents.limits.retry import Backoff
from schemas.call import PaidCall
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Retryable, Unprocessable
from schemas.result import ConversationResult
from streams.postgres.database import CONNECT_TIMEOUT_S, Database, parse_database_url
from streams.postgres.errors import CONNECTION_ERRORS, SqlFailure, classify
from streams.telemetry.log import LogThrottle

COMMAND_TIMEOUT_S = 20
#: The server ends a statement, since it does not notice that a client has gone while the statement waits for a lock,
#: and would keep the rows it has locked. Later than deadlock_timeout (1 s), so that the server tells a deadlock from
#: a locked row.
LOCK_TIMEOUT_MS = 1_500
#: Below COMMAND_TIMEOUT_S, so that the client gives up only on a server that does not answer.
STATEMENT_TIMEOUT_MS = 15_000
#: A database that comes back is found within the cap, however long it was away.
OUTAGE_BACKOFF = Backoff(base_s=0.1, cap_s=2.0)
#: The other session of a conflict is through by then; jitter alone keeps the two from meeting again.
CONFLICT_BACKOFF = Backoff(base_s=0.02, cap_s=0.5)
#: Takes the results and the calls, each as a JSON array.
_UPSERT = (Path(__file__).parents[1] / "postgres" / "queries" / "upsert_insights.sql").read_text()
_PROGRAM = "grok-insights worker"

_encode = msgspec.json.Encoder().encode

T = TypeVar("T", Job, PaidCall)
#: The parameters of the statement for a part of a batch.
Parameters = tuple[str, str]

log = structlog.get_logger()


class RowSink:
    """See agents.analyst.Rows; as many batches at once as are asked for, each on a connection of its own."""

    def __init__(self, database_url: str) -> None:
        """Raises Fatal for a URL that cannot be used."""
        self._database = parse_database_url(database_url)
        #: Of one connection, which is for `ping`: it must be answered while all writers wait.
        self._pool: asyncpg.Pool | None = None
        self._waiting_for = "not connected yet"
        self._idle: list[_Writer] = []
        self._writers: list[_Writer] = []

    async def start(self) -> None:
        """Raises Retryable while the database cannot be reached, Fatal when waiting cannot fix the failure."""
        try:
            self._pool = await self._connect_pool()
        except CONNECTION_ERRORS as error:
            failure = self._database.failure(error)
            self._waiting_for = str(failure)
            raise failure from error

    async def stop(self) -> None:
        """Drops all connections without a word: a server that hangs would not answer."""
        for writer in self._writers:
            writer.close()
        if self._pool is not None:
            self._pool.terminate()

    async def write(self, jobs: Sequence[Job]) -> RowResults[Job]:
        """Returns when each row is committed, refused by itself, blocked, or no longer wanted, however long it takes.

        Committed also means that a newer row of the conversation was there already. Raises Fatal when the tables are
        not as they must be. The call that gave a job its answer is committed with its row.
        """
        return await self._write(jobs, _job_parameters, lambda job: job.is_wanted)

    async def write_calls(self, calls: Sequence[PaidCall]) -> None:
        """Returns when each call is committed, however long it takes. Raises Fatal as `write` does."""
        left = list(calls)
        while left:
            written = await self._write(left, _call_parameters, lambda call: True)
            for call, error in written.refused:
                fields = {"text_key": call.text_key, "outcome": call.outcome, "cost_usd_ticks": call.cost_usd_ticks}
                log.error("call_not_stored", **fields, error=type(error).__name__)
            left = written.blocked

    async def _write(
        self, batch: Sequence[T], parameters: Callable[[list[T]], Parameters], is_wanted: Callable[[T], bool]
    ) -> RowResults[T]:
        if not self._idle:
            writer = _Writer(self._database)
            self._writers.append(writer)
            self._idle.append(writer)
        writer = self._idle.pop()
        try:
            return await writer.write(batch, parameters, is_wanted)
        except BaseException:
            writer.close()  # cancelled half-way, the connection is in no state to be used again
            raise
        finally:
            self._idle.append(writer)

    async def ping(self) -> None:
        """Raises Retryable with the reason when the database does not answer a query."""
        if self._pool is None:
            raise Retryable(self._waiting_for)
        try:
            await self._pool.execute("SELECT 1")
        except CONNECTION_ERRORS as error:
            raise Retryable(self._database.describe(error)) from error

    async def _connect_pool(self) -> asyncpg.Pool:
        pool = await self._database.pool(_PROGRAM, min_size=1, max_size=1, command_timeout_s=COMMAND_TIMEOUT_S)
        try:
            await check_can_write(pool)
        except BaseException:
            pool.terminate()
            raise
        return pool


class _Writer:
    """One connection, which is replaced as often as needed; writes one batch at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: asyncpg.Connection | None = None
        self._attempt = 0
        self._failing_since_s: float | None = None
        self._throttle = LogThrottle()

    async def write(
        self, batch: Sequence[T], parameters: Callable[[list[T]], Parameters], is_wanted: Callable[[T], bool]
    ) -> RowResults[T]:
        """A batch that fails for one of its rows is halved until that row is alone."""
        written = RowResults[T]([], [], [])
        parts = deque([list(batch)])
        while parts:
            # What failed goes to the end: the rest must not wait for a locked row.
            part = [item for item in parts.popleft() if is_wanted(item)]
            if part:
                parts += await self._attempt_part(part, parameters, written)
        return written

    def close(self) -> None:
        """Drops the connection without a word."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _attempt_part(
        self, part: list[T], parameters: Callable[[list[T]], Parameters], written: RowResults[T]
    ) -> list[list[T]]:
        """One statement; returns what is left to be written."""
        try:
            connection = await self._connected()
        except Exception as error:  # whatever prevents a connection is not the rows' fault
            await self._wait(error, OUTAGE_BACKOFF)
            return [part]
        try:
            await self._upsert(connection, *parameters(part))
        except Exception as error:  # the edge of the loop: classified, and never dropped
            return await self._after(error, part, written)
        self._works()
        written.stored.extend(part)
        return []

    async def _upsert(self, connection: asyncpg.Connection, *parameters: str) -> None:
        """One transaction, since limits for a session do not hold, or hold for others, where a pooler is in between."""
        limits = f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}"
        await connection.execute(f"BEGIN; {limits}")
        await connection.execute(_UPSERT, *parameters)
        await connection.execute("COMMIT")

    async def _after(self, error: Exception, part: list[T], written: RowResults[T]) -> list[list[T]]:
        failure = classify(error)
        # After a timeout of ours the server did not end the statement: it may be frozen.
        if failure is SqlFailure.PASSING or isinstance(error, TimeoutError):
            self.close()
        else:
            await self._roll_back()
        match failure:
            case SqlFailure.CONFLICT:
                await self._wait(error, CONFLICT_BACKOFF)
                return [part]
            case SqlFailure.PASSING:
                await self._wait(error, OUTAGE_BACKOFF)
                return [part]
            case SqlFailure.SCHEMA:
                raise self._database.fatal(error, "the database does not take rows") from error
            case SqlFailure.TOO_SLOW:
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

    async def _roll_back(self) -> None:
        try:
            if self._connection is not None and self._connection.is_in_transaction():
                await self._connection.execute("ROLLBACK", timeout=CONNECT_TIMEOUT_S)
        except CONNECTION_ERRORS:
            self.close()

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.connect(_PROGRAM, command_timeout_s=COMMAND_TIMEOUT_S)
        return self._connection

    async def _wait(self, error: Exception, backoff: Backoff) -> None:
        if self._failing_since_s is None:
            self._failing_since_s = time.monotonic()
        why = self._database.describe(error)
        if self._throttle.is_due(why, time.monotonic()):  # not each attempt: an outage may be long
            log.warning("postgres_write_failed", error=type(error).__name__, why=why)
        await asyncio.sleep(backoff.delay_s(self._attempt, random.random))
        self._attempt += 1

    def _works(self) -> None:
        if self._failing_since_s is not None:
            failed_s = round(time.monotonic() - self._failing_since_s, 1)
            log.info("postgres_write_works_again", failed_s=failed_s, attempts=self._attempt)
        self._attempt, self._failing_since_s = 0, None
        self._throttle.reset()


async def check_can_write(connection: asyncpg.Connection | asyncpg.Pool) -> None:
    """Runs the worker's statement with no row: it needs every column, and the rights to write.

    Raises what `explain_failure` explains.
    """
    await connection.execute(_UPSERT, "[]", "[]")


def _refusal(error: Exception) -> Exception:
    """Unprocessable for the server's word about the row; a defect of ours stays what it is."""
    if isinstance(error, asyncpg.PostgresError):
        return Unprocessable(DeadLetterReason.UNSTORABLE, f"Postgres refuses the row: {type(error).__name__}")
    return error


def _halves(part: list[T]) -> list[list[T]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]]


def _job_parameters(jobs: list[Job]) -> Parameters:
    rows = orjson.dumps([_row(job.result) for job in jobs]).decode()
    return rows, _json_calls([job.call for job in jobs if job.call is not None])


def _call_parameters(calls: list[PaidCall]) -> Parameters:
    return "[]", _json_calls(calls)


def _json_calls(calls: list[PaidCall]) -> str:
    return _encode(calls).decode()


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
    if result.metadata is not None:
        # orjson writes no integers beyond 64 bits, and metadata may hold any.
        row["metadata"] = orjson.Fragment(_encode(result.metadata))
    if result.repairs:
        row["repairs"] = result.repairs
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
