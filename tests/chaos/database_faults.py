"""Faults of a database server: killed, frozen, connections cut, slow commits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from streams.dev.local.postgres import Postgres
from tests.support.process_tree import continue_tree, is_stopped, kill_tree, stop_tree
from tests.support.waiting import became_true

_TIMEOUT_S = 5.0
_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
# For each statement, in its own transaction: a writer waits before it can commit.
_SLOWNESS = """
CREATE OR REPLACE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM nextval('slow_statements'), pg_sleep({seconds:f}); RETURN NULL; END $$
"""
_COUNTER = "CREATE SEQUENCE IF NOT EXISTS slow_statements"
_SLOWED = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM slow_statements"
_WRITERS = """
SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '-- Writes a batch of results%'
    AND pid <> pg_backend_pid() AND datname = current_database()
"""
# The trigger stays: dropping it would wait for the slow writers that are to be ended.
_TRIGGER = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'take_time') THEN
        CREATE TRIGGER take_time AFTER INSERT OR UPDATE ON insights
            FOR EACH STATEMENT EXECUTE FUNCTION take_time();
    END IF;
END $$
"""
#: Errors while the server is down, frozen, starting or stopping.
_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class DatabaseFaults:
    """Faults of one local server. Every call may be repeated, and none fails because the server is away.

    `database_url` is the database of the connections and the table; without it, the server's own one.
    """

    def __init__(self, postgres: Postgres, database_url: str | None = None) -> None:
        self._postgres = postgres
        self._url = database_url or postgres.url

    @property
    def is_alive(self) -> bool:
        """Whether the server's process exists, frozen or not."""
        return self._postgres.is_running

    @property
    def is_frozen(self) -> bool:
        """Every process of the server is stopped."""
        return self._postgres.pid is not None and self.is_alive and is_stopped(self._postgres.pid)

    def kill(self) -> None:
        """SIGKILL for every process of the server at one moment; returns when it is dead. Blocks."""
        if self._postgres.pid is not None and self.is_alive:
            kill_tree(self._postgres.pid)
            self._postgres.stop()

    def restart(self) -> None:
        """Starts a dead server again; returns when it takes logins, after its recovery. Blocks."""
        if not self.is_alive:
            self._postgres.start()

    def freeze(self) -> None:
        """SIGSTOP for every process of the server; returns when none runs. Its connections stay open."""
        if self._postgres.pid is not None and self.is_alive:
            stop_tree(self._postgres.pid)

    def thaw(self) -> None:
        """SIGCONT for every process of the server."""
        if self._postgres.pid is not None and self.is_alive:
            continue_tree(self._postgres.pid)

    async def until_written_to(self, within_s: float) -> bool:
        """Returns as soon as rows are being written; False when none were in time."""
        with suppress(*_AWAY):
            async with self._connection() as connection:
                return await became_true(lambda: connection.fetchval(_WRITERS), within_s, 0.005)
        return False

    async def cut_connections(self) -> int:
        """Ends all other connections to the database; returns how many."""
        with suppress(*_AWAY):
            async with self._connection() as connection:
                return len(await connection.fetch(_CUT, timeout=_TIMEOUT_S))
        return 0

    async def slow_commits(self, seconds: float) -> bool:
        """Delays each statement that writes insights. Returns whether the server did it."""
        return await self._did(_COUNTER, _SLOWNESS.format(seconds=seconds), _TRIGGER)

    async def normal_commits(self) -> bool:
        """Ends slow_commits, except for statements that wait already. Returns whether the server did it."""
        return await self._did(_SLOWNESS.format(seconds=0))

    async def slowed(self) -> int:
        """Returns the number of statements that met the trigger so far, slow or not; 0 while the server is down."""
        with suppress(*_AWAY):
            async with self._connection() as connection:
                return int(await connection.fetchval(_SLOWED, timeout=_TIMEOUT_S))
        return 0

    async def _did(self, *statements: str) -> bool:
        try:
            async with self._connection() as connection:
                for statement in statements:
                    await connection.execute(statement, timeout=_TIMEOUT_S)
        except _AWAY:
            return False
        return True

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self._url, timeout=_TIMEOUT_S)
        try:
            yield connection
        finally:
            # A frozen server would not answer a goodbye.
            connection.terminate()
