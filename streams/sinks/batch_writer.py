"""One writer of batches: a connection of its own, and patience. Knows nothing of the statement it makes."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import asyncpg
import structlog

from agents.guards.backoff import Backoff
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, Unprocessable
from streams.sinks.rows import Row
from streams.sinks.sql_failure import SqlFailure, judged

#: One writer waits for all rows of its batch: a database that comes back is found within the cap, whatever the outage.
OUTAGE_BACKOFF = Backoff(base_s=0.1, cap_s=2.0)
#: The other session of a conflict is through by then; jitter alone keeps the two from meeting again.
CONFLICT_BACKOFF = Backoff(base_s=0.02, cap_s=0.5)

log = structlog.get_logger()


class Write(NamedTuple):
    """A row, and who waits for it; one that nobody waits for any more is not written."""

    row: Row
    done: "asyncio.Future[None]"


Connect = Callable[[], Awaitable[asyncpg.Connection]]
Store = Callable[[asyncpg.Connection, list[Row]], Awaitable[None]]


class BatchWriter:
    """`store` writes rows in one statement, all or none of them; used for one batch at a time."""

    def __init__(self, connect: Connect, store: Store) -> None:
        self._connect = connect
        self._store = store
        self._connection: asyncpg.Connection | None = None
        self._held: list[Write] = []
        self._attempt = 0
        self._failing_since_s: float | None = None
        self._logged_error = ""

    async def settle(self, batch: list[Write]) -> list[Write]:
        """Returns the rows that are too slow even alone, for somebody holds them: whoever waits for them still does.

        Each other write is then committed, refused, or waited for by nobody any more, however long that takes. Refused
        are, each by itself, rows that the server does not take: with Unprocessable, with Fatal when the tables are not
        as they must be, with the error itself when it is a defect.
        """
        self._held = []
        parts = deque([batch])
        while parts:
            # What failed goes to the end: the rest must not wait for a row that somebody holds.
            part = [write for write in parts.popleft() if not write.done.done()]
            if part:
                parts += await self._tried(part)
        return self._held

    def close(self) -> None:
        """Drops the connection without a word, for a server that hangs would not answer."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _tried(self, part: list[Write]) -> list[list[Write]]:
        """What is left of it after one statement."""
        try:
            await self._store(await self._connected(), [write.row for write in part])
        except _NotConnected as error:
            await self._wait(error.cause, OUTAGE_BACKOFF)
            return [part]
        except Exception as error:  # the edge of the writer's loop: whatever it was, somebody waits for the rows
            return await self._after(error, part)
        self._works()
        _resolve(part, None)
        return []

    async def _after(self, error: Exception, part: list[Write]) -> list[list[Write]]:
        match judged(error):
            case SqlFailure.CONFLICT:
                await self._wait(error, CONFLICT_BACKOFF)
                return [part]
            case SqlFailure.PASSING:
                self.close()
                await self._wait(error, OUTAGE_BACKOFF)
                return [part]
            case SqlFailure.TOO_SLOW:
                return self._after_too_slow(error, part)
            case SqlFailure.ROW if len(part) > 1:
                return _halves(part)
        self._works()
        _resolve(part, _refusal(error))
        return []

    def _after_too_slow(self, error: Exception, part: list[Write]) -> list[list[Write]]:
        """Without a pause: the statement waited long enough, and each row fails so once for each halving at most."""
        if isinstance(error, TimeoutError):  # ours, so the server did not end the statement: it may answer no more
            self.close()
        if len(part) > 1:
            return _halves(part)
        self._held += part
        return []

    async def _connected(self) -> asyncpg.Connection:
        """Raises _NotConnected: whatever keeps us from connecting is no fault of the rows."""
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._connect()
            except Exception as error:
                raise _NotConnected(error) from error
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


class _NotConnected(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _halves(part: list[Write]) -> list[list[Write]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]]


def _resolve(part: list[Write], error: Exception | None) -> None:
    for write in part:
        if write.done.done():
            continue
        if error is None:
            write.done.set_result(None)
        else:
            write.done.set_exception(error)


def _refusal(error: Exception) -> Exception:
    if judged(error) is SqlFailure.SCHEMA:  # class 42: no such table or column, no right to write
        hint = "bring the tables up to date with: grok-insights migrate"
        return Fatal("the database does not take rows", type(error).__name__, hint)
    if isinstance(error, asyncpg.PostgresError):
        return Unprocessable(DeadLetterReason.UNSTORABLE, f"Postgres refuses the row: {type(error).__name__}")
    return error
