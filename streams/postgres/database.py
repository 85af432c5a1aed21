"""DATABASE_URL: parsed once, the same for every command, and the connections that it describes."""

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote, urlencode

import asyncpg
import structlog

from schemas.errors import Fatal, Retryable
from streams.postgres.errors import CONNECTION_ERRORS, explain_failure

#: A frozen server accepts a connection and never answers. The next attempt finds it thawed; a longer one would, too.
CONNECT_TIMEOUT_S = 5.0
#: asyncpg's default.
_CACHED_STATEMENTS = 100
_INVALID = "DATABASE_URL is not a valid PostgreSQL URL"
_HINT = (
    "set it to postgresql://USER:PASSWORD@HOST:PORT/DATABASE; in the password, write / as %2F, # as %23, % as %25, "
    "? as %3F and @ as %40"
)
_LOGIN_AND_HOSTS = re.compile(r"(?:(?P<login>[^/?]*)@)?(?P<hosts>[^/?@]*)(?:/(?P<dbname>[^?]*))?(?:\?(?P<query>.*))?")
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]*)(?::(\d{0,5}))?")
_HOST = re.compile(r"[A-Za-z0-9._:-]+|/[^\x00]*")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DEFAULT_PORT, _MAX_PORT = 5432, 65_535

_LOCATION = ("user", "password", "host", "port", "dbname")
_FILES = ("sslrootcert", "sslcert", "sslkey")
#: Parameters with a fixed set of values. Of channel binding and GSS encryption asyncpg has neither.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "pgbouncer": ("true", "false"),
}
_PATTERNS: Mapping[str, tuple[str, str]] = {
    "connect_timeout": (r"\d{1,4}", "whole seconds"),
    "application_name": (r"[ -~]{1,63}", "1 to 63 printable ASCII characters"),
    "options": (r"[ -~]+", "printable ASCII characters"),
    "schema": (r"[a-z_][a-z0-9_]{0,62}", "the name of a schema, in lower case and without quotes"),
}
_SUPPORTED = (*_LOCATION, *_FILES, *_CHOICES, *_PATTERNS)
#: What to do instead, for parameters that URLs of cloud providers often have.
_INSTEAD = {
    "channel_binding": "channel binding is not available; sslmode=verify-full proves the server's identity instead",
    "sslrootcert": "for public certificates that is often /etc/ssl/certs/ca-certificates.crt",
    "ssl": "use sslmode",
}

log = structlog.get_logger()


@dataclass
class Database:
    """Where the database is and how to log in; opens connections. Make one with `parse_database_url`."""

    #: Host names, addresses or socket folders, with ports; several are tried in order.
    hosts: tuple[tuple[str, int], ...]
    user: str
    name: str
    password: str | None = field(repr=False)
    #: sslmode and files, as libpq names them.
    tls: Mapping[str, str]
    target_session_attrs: str
    connect_timeout_s: float
    #: The application_name of the URL, which replaces that of the program.
    application_name: str | None
    #: Startup parameters that only a server understands, not every pooler.
    server_settings: Mapping[str, str]
    #: Whether a pooler is in between; found out by the first connection unless the URL says it.
    is_pooled: bool = False

    @property
    def where(self) -> str:
        """The hosts with their ports, as shown in messages."""
        return ", ".join(host if host.startswith("/") else f"{host}:{port}" for host, port in self.hosts)

    async def connect(self, program: str, *, command_timeout_s: float | None = None) -> asyncpg.Connection:
        """Opens a connection, without named statements where a pooler is in between.

        In transaction mode a pooler hands each transaction to any of its server connections: a named statement is
        missing there, or is another program's of the same name. Each host gets `connect_timeout_s`. Raises what
        `explain_failure` explains.
        """
        return (await self.connect_to_one_host(program, command_timeout_s))[1]

    async def connect_to_one_host(
        self, program: str, command_timeout_s: float | None = None
    ) -> tuple["Database", asyncpg.Connection]:
        """As `connect`; returns also the database with only that host."""
        # asyncpg would give all hosts together one time, which the first one uses up when it does not answer.
        prefers_standby = self.target_session_attrs == "prefer-standby"
        candidates = [
            replace(self, hosts=(host,), target_session_attrs=attribute)
            for attribute in (("standby", "any") if prefers_standby else (self.target_session_attrs,))
            for host in self.hosts
        ]
        for candidate in candidates:
            try:
                connection = await candidate._connect_unprepared(program, command_timeout_s)
            except CONNECTION_ERRORS:
                if candidate is candidates[-1]:
                    raise
            else:
                self.is_pooled = candidate.is_pooled
                return candidate, connection
        raise AssertionError("a database has at least one host")

    async def _connect_unprepared(self, program: str, command_timeout_s: float | None) -> asyncpg.Connection:
        async with asyncio.timeout(self.connect_timeout_s):
            connection = await self._connect(program, command_timeout_s)
            if self.is_pooled or await _is_direct(connection):
                return connection
            log.info("pooler_found", database=self.where)
            self.is_pooled = True
            connection.terminate()
            return await self._connect(program, command_timeout_s)

    async def _connect(self, program: str, command_timeout_s: float | None) -> asyncpg.Connection:
        ((host, port),) = self.hosts
        return await asyncpg.connect(
            # asyncpg takes the names of files in this form only.
            f"postgresql://?{urlencode({**self.tls, 'target_session_attrs': self.target_session_attrs})}",
            host=host,
            port=port,
            user=self.user,
            password=self.password,
            database=self.name,
            timeout=self.connect_timeout_s,
            command_timeout=command_timeout_s,
            statement_cache_size=0 if self.is_pooled else _CACHED_STATEMENTS,
            server_settings={"application_name": self.application_name or program, **self.server_settings},
        )

    def pool(self, program: str, *, max_size: int, min_size: int = 0, command_timeout_s: float) -> asyncpg.Pool:
        """Returns a pool to be awaited; one without `min_size` connects on first use."""

        async def connect(*_: object, **__: Any) -> asyncpg.Connection:
            return await self.connect(program, command_timeout_s=command_timeout_s)

        return asyncpg.create_pool(min_size=min_size, max_size=max_size, connect=connect)

    def url_without_password(self) -> str:
        """For drivers that know libpq's URLs and take the password from PGPASSWORD. Only with one host."""
        ((host, port),) = self.hosts
        parameters = {**self.tls, "connect_timeout": f"{self.connect_timeout_s:.0f}", **self.server_settings}
        if is_socket := host.startswith("/"):
            parameters |= {"host": host, "port": str(port)}
        authority = "" if is_socket else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        login, name = quote(self.user, safe=""), quote(self.name, safe="")
        return f"postgresql://{login}@{authority}/{name}?{urlencode(parameters, quote_via=quote)}"

    def describe(self, error: BaseException) -> str:
        """Returns why a connection or statement failed, and what to do if waiting does not help; holds no secrets."""
        failure = explain_failure(error, self.where)
        return f"{failure.why}; {failure.hint}" if failure.is_permanent else failure.why

    def failure(self, error: Exception) -> Retryable | Fatal:
        """Returns the error of a failed start: Fatal when waiting cannot fix it."""
        is_permanent = explain_failure(error, self.where).is_permanent
        return self.fatal(error) if is_permanent else Retryable(self.describe(error))

    def fatal(self, error: Exception, what: str = "the database cannot be used") -> Fatal:
        """Returns the end of a process that does not wait."""
        failure = explain_failure(error, self.where)
        return Fatal(what, failure.why, failure.hint)


async def _is_direct(connection: asyncpg.Connection) -> bool:
    """Returns whether the server process is the one that greeted us: poolers make up the number they greet with.

    The status of a plain query tells, since a pooler may not keep a prepared one.
    """
    try:
        query = f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid()}"
        return await connection.execute(query) == "SELECT 1"
    except BaseException:
        connection.terminate()
        raise


def parse_database_url(url: str) -> Database:
    """Parses DATABASE_URL. Raises Fatal with exit code 2 that names every parameter that is not supported.

    No value is quoted, and no name either where the URL is malformed: it may be a part of the password.
    """
    location, parameters = _split(url.strip())
    unknown = [f"{name} is not supported" for name in parameters if name not in _SUPPORTED]
    problems = unknown + [problem for name, value in parameters.items() if (problem := _problem(name, value))]
    if parameters.get("pgbouncer") == "true" and parameters.get("schema", "public") != "public":
        problems.append("schema needs a connection without pooler; set search_path of the user with ALTER ROLE")
    if parameters.get("sslmode", "").startswith("verify-") and "sslrootcert" not in parameters:
        problems.append("sslrootcert is required with sslmode=verify-ca and verify-full")
    if problems:
        instead = [text for name, text in _INSTEAD.items() if any(p.startswith(f"{name} ") for p in problems)]
        supported = f"supported parameters: {', '.join(_SUPPORTED)}"
        hint = "; ".join([*instead, supported if unknown else "correct or remove them in DATABASE_URL"])
        raise Fatal("DATABASE_URL has parameters that cannot be used", "; ".join(problems), hint, exit_code=2)
    hosts = tuple(_hosts(location["host"], location["port"]))
    several = "read-write" if len(hosts) > 1 else "any"
    settings = {"options": parameters["options"]} if "options" in parameters else {}
    if parameters.get("schema", "public") != "public":  # public is in every search path
        settings["search_path"] = parameters["schema"]
    return Database(
        hosts=hosts,
        user=location["user"],
        name=location["dbname"] or location["user"],
        password=location["password"] or None,
        tls={"sslmode": "prefer"} | {name: parameters[name] for name in ("sslmode", *_FILES) if name in parameters},
        target_session_attrs=parameters.get("target_session_attrs", several),
        connect_timeout_s=float(parameters.get("connect_timeout", 0)) or CONNECT_TIMEOUT_S,
        application_name=parameters.get("application_name"),
        server_settings=settings,
        is_pooled=parameters.get("pgbouncer") == "true",
    )


def _split(url: str) -> tuple[dict[str, str], dict[str, str]]:
    """Returns user, password, host, port and dbname, "" where absent, and the other parameters."""
    scheme, _, rest = url.partition("://")
    match = _LOGIN_AND_HOSTS.fullmatch(rest)
    # A #, an @ behind the hosts or a stray % comes from a password that is not percent-encoded.
    is_malformed = "#" in rest or _STRAY_PERCENT.search(rest) or not rest.isprintable() or " " in rest
    if scheme not in ("postgresql", "postgres") or match is None or is_malformed or "@" in rest[match.end("hosts") :]:
        raise _invalid()
    user, _, password = (match["login"] or "").partition(":")
    location = {"user": user, "password": password, "host": match["hosts"], "port": "", "dbname": match["dbname"] or ""}
    parameters: dict[str, str] = {}
    for item in (match["query"] or "").split("&"):
        name, separator, value = item.partition("=")
        target = location if name in _LOCATION else parameters
        if item and (not separator or target.get(name)):
            raise _invalid("a parameter has no value, or is given twice")
        if item:
            target[name] = value
    if any(not name.isidentifier() for name in parameters) or (
        match["query"] and not password and location["password"] and not parameters.keys() <= set(_SUPPORTED)
    ):
        raise _invalid()  # an unknown name may be the rest of a password with an &
    try:
        decoded = {name: unquote(value, errors="strict") for name, value in location.items() if name != "host"}
        parameters = {name: unquote(value, errors="strict") for name, value in parameters.items()}
    except UnicodeDecodeError:
        raise _invalid() from None
    decoded["host"] = location["host"]  # decoded host by host: a socket's folder has slashes, maybe commas
    if not decoded["user"] or not decoded["host"]:
        raise _invalid("it names no " + ("user" if not decoded["user"] else "host"))
    if any("\0" in value for value in (*decoded.values(), *parameters.values())):
        raise _invalid()
    return decoded, parameters


def _hosts(hosts: str, ports: str) -> Iterator[tuple[str, int]]:
    """Yields each host and its port; `ports` is the parameter, one for all hosts or one for each."""
    specs = hosts.split(",")
    given = ports.split(",")
    if len(given) not in (1, len(specs)):
        raise _invalid("it has another number of ports than of hosts")
    for spec, port in zip(specs, given * len(specs) if len(given) == 1 else given, strict=False):
        is_socket = unquote(spec).startswith("/")
        match = None if is_socket else _HOST_AND_PORT.fullmatch(spec)
        host = unquote(spec) if is_socket else unquote(match[1]).strip("[]") if match else ""
        number = (match[2] if match else "") or port or str(_DEFAULT_PORT)
        if not _HOST.fullmatch(host) or not number.isdecimal() or not 0 < int(number) <= _MAX_PORT:
            raise _invalid("a host or port is not valid")
        yield host, int(number)


def _problem(name: str, value: str) -> str | None:
    """Returns what is wrong with a supported parameter, without its value."""
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"{name} must be {', '.join(_CHOICES[name][:-1])} or {_CHOICES[name][-1]}"
    if name in _PATTERNS and not re.fullmatch(_PATTERNS[name][0], value):
        return f"{name} must be {_PATTERNS[name][1]}"
    if name in _FILES and not (os.path.isfile(value) and os.access(value, os.R_OK)):
        return f"{name} must be the path of a readable file"
    return None


def _invalid(why: str = "") -> Fatal:
    return Fatal(_INVALID, why, _HINT, exit_code=2)
