"""Results into Postgres: batches of one statement each, idempotent by key, several under way at once."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import structlog

from agents.guards.backoff import Backoff
from schemas.errors import Fatal, Retryable
from schemas.result import ConversationResult
from streams.sinks.batch_writer import BatchWriter, Write
from streams.sinks.rows import Row, columns_of, row_of

MAX_BATCH_ROWS = 500
#: Two statements under way hide one round trip behind the other; more only wait for the same disk.
WRITERS = 2
COMMAND_TIMEOUT_S = 20
#: The server ends a statement, for it does not notice that a client has gone while the statement waits for a lock: the
#: statement would go on holding the rows that it has. Later than deadlock_timeout (1 s), so that the server tells apart
#: a deadlock from a row that somebody holds.
LOCK_TIMEOUT_MS = 1_500
#: Below COMMAND_TIMEOUT_S, so that the client gives up only on a server that does not answer.
STATEMENT_TIMEOUT_MS = 15_000
#: A frozen server takes a connection and says no word. The next attempt finds it thawed; a longer one would, too.
CONNECT_TIMEOUT_S = 5
#: A row that somebody holds is tried again this often, each time for as long as LOCK_TIMEOUT_MS.
HELD_BACKOFF = Backoff(base_s=0.1, cap_s=2.0)
#: Before a writer that ended is replaced: whatever ended it may end the next one.
RESTART_S = 1.0
_UPSERT = (Path(__file__).parent / "queries" / "upsert_insights.sql").read_text()

#: What may be over at the next attempt to start.
_PASSING = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

#: What a writer does, without end.
Work = Callable[[BatchWriter], Awaitable[None]]

log = structlog.get_logger()


class PostgresSink:
    """Collects what is written while earlier batches are under way; a write returns when its row is committed.

    Rows that somebody holds have a writer of their own, so that they hold nobody else.
    """

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        #: Of one connection, which is for `ping`: it must be answered while all writers wait.
        self._pool: asyncpg.Pool | None = None
        self._waiting: asyncio.Queue[Write] = asyncio.Queue()
        self._held: asyncio.Queue[Write] = asyncio.Queue()
        self._writers: dict[str, asyncio.Task[None]] = {}
        self._is_stopping = False

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
        for number in range(WRITERS):
            self._start_writer(f"postgres-writer-{number}", self._write_batches)
        self._start_writer("postgres-writer-held", self._write_held)

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
        self._is_stopping = True
        for writer in self._writers.values():
            writer.cancel()
        await asyncio.gather(*self._writers.values(), return_exceptions=True)
        for queue in (self._waiting, self._held):
            while not queue.empty():
                queue.get_nowait().done.cancel()
        if self._pool is not None:
            self._pool.terminate()

    async def write(self, result: ConversationResult) -> None:
        """Returns when the row is committed (or a newer one stands there already), however long the database is away.

        Raises Unprocessable when it refuses this very row, Fatal when it takes none, Retryable when the writer of the
        row ended, and the error itself when the row meets a defect. Cancelled or retryable, the row may or may not be
        there.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(Write(row_of(result), done))
        await done

    async def ping(self) -> None:
        """Raises when the database does not answer a query."""
        if self._pool is None:
            raise Retryable("not connected yet")
        await self._pool.execute("SELECT 1")

    def _start_writer(self, name: str, work: Work) -> None:
        if self._is_stopping:
            return
        writer = self._writers[name] = asyncio.create_task(self._run(work), name=name)
        writer.add_done_callback(lambda ended: self._replace(ended, work))

    def _replace(self, ended: asyncio.Task[None], work: Work) -> None:
        """Without writers all writes would wait for ever."""
        if self._is_stopping:
            return
        error = "CancelledError" if ended.cancelled() else type(ended.exception()).__name__
        log.error("postgres_writer_ended", writer=ended.get_name(), error=error)
        asyncio.get_running_loop().call_later(RESTART_S, self._start_writer, ended.get_name(), work)

    async def _run(self, work: Work) -> None:
        writer = BatchWriter(self._connect, _store)
        try:
            await work(writer)
        finally:
            writer.close()

    async def _write_batches(self, writer: BatchWriter) -> None:
        while True:
            if held := await self._settle(writer, await _next_batch(self._waiting)):
                log.warning("postgres_rows_held", rows=len(held))

    async def _write_held(self, writer: BatchWriter) -> None:
        rounds = 0
        while True:
            if await self._settle(writer, await _next_batch(self._held)):
                await asyncio.sleep(HELD_BACKOFF.delay_s(rounds, random.random))
                rounds += 1
            else:
                rounds = 0

    async def _settle(self, writer: BatchWriter, batch: list[Write]) -> list[Write]:
        """The held rows of the batch, which are in their writer's queue now."""
        try:
            held = await writer.settle(batch)
        except BaseException:  # whatever it was, nobody may wait for a batch that no one writes any more
            self._give_up(batch)
            raise
        for write in held:
            self._held.put_nowait(write)
        return held

    def _give_up(self, batch: list[Write]) -> None:
        for write in batch:
            if self._is_stopping:
                write.done.cancel()
            elif not write.done.done():
                write.done.set_exception(Retryable("the writer of the row ended"))

    async def _connect(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._database_url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S
        )
        try:
            # Not as parameters of the connection: poolers such as PgBouncer refuse those.
            limits = f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET statement_timeout = {STATEMENT_TIMEOUT_MS}"
            await connection.execute(limits, timeout=CONNECT_TIMEOUT_S)
        except BaseException:
            connection.terminate()
            raise
        return connection


async def _next_batch(queue: asyncio.Queue[Write]) -> list[Write]:
    batch = [await queue.get()]
    while len(batch) < MAX_BATCH_ROWS and not queue.empty():
        batch.append(queue.get_nowait())
    return batch


async def _store(connection: asyncpg.Connection, rows: list[Row]) -> None:
    await connection.execute(_UPSERT, *columns_of(rows))
