"""Results into Postgres: batches of one statement each, idempotent by key, several under way at once."""

import asyncio
from pathlib import Path

import asyncpg

from schemas.errors import Fatal, Retryable
from schemas.result import ConversationResult
from streams.sinks.batch_writer import BatchWriter, Write
from streams.sinks.rows import Row, columns_of, row_of

MAX_BATCH_ROWS = 500
#: Two statements under way hide one round trip behind the other; more only wait for the same disk.
WRITERS = 2
COMMAND_TIMEOUT_S = 20
#: A frozen server takes a connection and says no word. The next attempt finds it thawed; a longer one would, too.
CONNECT_TIMEOUT_S = 5
_UPSERT = (Path(__file__).parent / "queries" / "upsert_insights.sql").read_text()

#: What may be over at the next attempt to start.
_PASSING = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class PostgresSink:
    """Collects what is written while earlier batches are under way; a write returns when its row is committed."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._pool: asyncpg.Pool | None = None
        self._waiting: asyncio.Queue[Write] = asyncio.Queue()
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
            self._database_url, min_size=1, max_size=1, command_timeout=COMMAND_TIMEOUT_S, timeout=CONNECT_TIMEOUT_S
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
            self._waiting.get_nowait().done.cancel()
        if self._pool is not None:
            self._pool.terminate()

    async def write(self, result: ConversationResult) -> None:
        """Returns when the row is committed (or a newer one stands there already), however long the database is away.

        Raises Unprocessable when it refuses this very row, Fatal when it takes none. Cancelled, the row may or may not
        be there.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(Write(row_of(result), done))
        await done

    async def ping(self) -> None:
        """Raises when the database does not answer a query."""
        if self._pool is None:
            raise Retryable("not connected yet")
        await self._pool.execute("SELECT 1")

    async def _write_batches(self) -> None:
        writer = BatchWriter(self._connect, _store)
        try:
            while True:
                batch = await self._next_batch()
                try:
                    await writer.settle(batch)
                finally:
                    # Nobody may wait for a batch that no one writes any more.
                    for write in batch:
                        write.done.cancel()
        finally:
            writer.close()

    async def _next_batch(self) -> list[Write]:
        batch = [await self._waiting.get()]
        while len(batch) < MAX_BATCH_ROWS and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return batch

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self._database_url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S)


async def _store(connection: asyncpg.Connection, rows: list[Row]) -> None:
    await connection.execute(_UPSERT, *columns_of(rows))
