"""Results into Postgres: batches of one statement each, idempotent by key, several under way at once."""

import asyncio
from contextlib import suppress
from pathlib import Path

import asyncpg
import structlog

from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, Retryable, Unprocessable
from schemas.result import ConversationResult
from streams.sinks.rows import Row, columns_of, row_of

MAX_BATCH_ROWS = 500
#: Two statements under way hide one round trip behind the other; more only wait for the same disk.
WRITERS = 2
COMMAND_TIMEOUT_S = 20
_UPSERT = (Path(__file__).parent / "queries" / "upsert_insights.sql").read_text()

#: What the server says of the values themselves: no retry makes them storable.
_BAD_VALUES = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
#: What may be over at the next attempt. InternalClientError is what asyncpg raises when a connection is cut just as the
#: statement is sent ("another operation is in progress"): the connection is lost, nothing else.
_PASSING = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

log = structlog.get_logger()


class PostgresSink:
    """Collects what is written while earlier batches are under way; a write returns when its row is committed."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._pool: asyncpg.Pool | None = None
        self._waiting: asyncio.Queue[tuple[Row, asyncio.Future[None]]] = asyncio.Queue()
        self._writers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Raises Retryable while the database cannot be reached, Fatal when it has no table or takes no login."""
        try:
            self._pool = await self._connected()
        except ValueError:  # also asyncpg's ClientConfigurationError, whose words may quote the address
            raise Fatal("DATABASE_URL is no address of a database", "", "it starts with postgresql://") from None
        except asyncpg.UndefinedTableError as error:
            hint = "make it with: grok-insights migrate"
            raise Fatal("the database has no table insights", "its migrations were not run", hint) from error
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            raise Fatal("the database cannot be used", type(error).__name__, "check DATABASE_URL") from error
        except _PASSING as error:
            raise Retryable(f"Postgres: {type(error).__name__}") from error
        self._writers = [
            asyncio.create_task(self._write_batches(), name=f"postgres-writer-{n}") for n in range(WRITERS)
        ]

    async def _connected(self) -> asyncpg.Pool:
        pool = await asyncpg.create_pool(
            self._database_url, min_size=1, max_size=WRITERS, command_timeout=COMMAND_TIMEOUT_S
        )
        try:
            await pool.execute("SELECT FROM insights LIMIT 0")
        except BaseException:
            pool.terminate()
            raise
        return pool

    async def stop(self) -> None:
        """Ends the writers; whoever still waits for a row is cancelled, for its row may or may not be there."""
        for writer in self._writers:
            writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)
        while not self._waiting.empty():
            self._waiting.get_nowait()[1].cancel()
        if self._pool is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._pool.close(), timeout=2)
            self._pool.terminate()

    async def write(self, result: ConversationResult) -> None:
        """Returns when the row is committed (or a newer one stands there already).

        Raises Retryable when the database cannot be reached, Unprocessable when it refuses this very row.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((row_of(result), done))
        await done

    async def ping(self) -> None:
        """Raises when the database does not answer a query."""
        if self._pool is None:
            raise Retryable("not connected yet")
        await self._pool.execute("SELECT 1")

    async def _write_batches(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < MAX_BATCH_ROWS and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                await self._write_batch(batch)
            except BaseException:
                # Nobody may wait for a batch that no one writes any more.
                for _, done in batch:
                    done.cancel()
                raise

    async def _write_batch(self, batch: list[tuple[Row, asyncio.Future[None]]]) -> None:
        """One statement for all; when the server refuses a value, halves, until the bad row stands alone."""
        error = await self._execute([row for row, _ in batch])
        if isinstance(error, Unprocessable) and len(batch) > 1:
            middle = len(batch) // 2
            await self._write_batch(batch[:middle])
            await self._write_batch(batch[middle:])
            return
        for _, done in batch:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    async def _execute(self, rows: list[Row]) -> Exception | None:
        assert self._pool is not None, "start() comes before write()"
        try:
            await self._pool.execute(_UPSERT, *columns_of(rows))
        except _BAD_VALUES as error:
            return Unprocessable(DeadLetterReason.UNSTORABLE, f"Postgres refuses the row: {type(error).__name__}")
        except asyncpg.SyntaxOrAccessError as error:  # class 42: no such table or column, no right to write
            hint = "bring the tables up to date with: grok-insights migrate"
            return Fatal("the database does not take rows", type(error).__name__, hint)
        except _PASSING as error:
            log.warning("postgres_write_failed", rows=len(rows), error=type(error).__name__)
            return Retryable(f"Postgres: {type(error).__name__}")
        except Exception as error:  # the edge of the writer's loop: a defect is told to whoever waits for the rows
            return error
        return None
