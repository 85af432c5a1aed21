"""`grok-insights check`: whether a worker with these settings could start and work."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import asyncpg
import typer
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.text import Text
from yarl import URL

from agents.grok.client import GrokAnalyser, address_of
from schemas.errors import Fatal, Retryable
from schemas.settings import Settings, load_settings
from streams.app import build_analyser
from streams.commands.output import print_json, run
from streams.kafka.admin import check_configs
from streams.kafka.clients import client_options, describe_broker_error
from streams.kafka.offset_reader import OffsetReader
from streams.postgres.database import parse_database_url
from streams.postgres.errors import CONNECTION_ERRORS
from streams.resources import infra
from streams.sinks.rows import check_can_write
from streams.telemetry.log import configure_logging
from streams.terminal import Cell, Column, print_table
from streams.worker.rebalance import count_partitions

TIMEOUT_S = 10.0
#: Shorter, so that the client itself fails and names the address that does not answer.
REQUEST_TIMEOUT_MS = 4_000
#: Shorter, so that Postgres itself names the lock that is waited for.
LOCK_TIMEOUT_MS = 3_000

#: A schema with our tables that this user may not look into: Postgres says of them that they do not exist.
_CLOSED_SCHEMA = """
SELECT quote_ident(nspname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relname = 'insights' AND relkind IN ('r', 'p') AND to_regclass('insights') IS NULL
  AND nspname IN (
      SELECT replace(btrim(listed, ' "'), '$user', current_user::text)
      FROM regexp_split_to_table(current_setting('search_path'), ',') AS listed
  )
  AND NOT has_schema_privilege(pg_namespace.oid, 'USAGE')
"""
#: What a worker needs and this user lacks, a row for each table.
_MISSING_RIGHTS = """
SELECT
    format('%s on %s', string_agg(privilege, ', ' ORDER BY privilege), relname) AS rights,
    format(
        'GRANT %s ON %s.%I TO %I',
        string_agg(privilege, ', ' ORDER BY privilege), relnamespace::regnamespace, relname, current_user
    ) AS statement
FROM (
    VALUES ('insights', 'SELECT'), ('insights', 'INSERT'), ('insights', 'UPDATE'), ('calls', 'INSERT')
) AS needed (name, privilege)
JOIN pg_class ON pg_class.oid = to_regclass(name)
WHERE NOT has_table_privilege(pg_class.oid, privilege)
GROUP BY relname, relnamespace
ORDER BY relname DESC
"""

#: Returns what it found, or raises why it failed.
Check = Callable[[], Awaitable[str]]


class Finding(NamedTuple):
    """The result of one check; `detail` is without secrets."""

    name: str
    ok: bool
    detail: str


def check(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Check brokers, topics, database, tables and rights on them, provider (key and model) and data folder.

    Prints one line for each, changes nothing and spends no tokens. Exit code 0
    if all is well, 1 if not. Settings: those of the worker.
    """
    settings = load_settings("kafka_bootstrap_servers", "database_url", needs_model=True)
    configure_logging("critical")
    findings = run(_check_all(settings))
    is_ok = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": is_ok, "checks": [finding._asdict() for finding in findings]})
    else:
        print_table([Column()] * 3, map(_cells, findings), Console())
    if not is_ok:
        raise typer.Exit(1)


def _cells(finding: Finding) -> tuple[Cell, ...]:
    state = Text("ok", style="green") if finding.ok else Text("failed", style="bold red")
    return finding.name, state, finding.detail


async def _check_all(settings: Settings) -> list[Finding]:
    """Makes all checks at once, but not the one of a server's contents when the server cannot be used."""
    # A host that cannot be encoded fails where it is used.
    provider_address = address_of(URL(settings.grok_base_url, encoded=True))
    kafka, postgres, provider, data_folder = await asyncio.gather(
        _server("brokers", "topics", partial(_brokers, settings), str(settings.kafka_bootstrap_servers)),
        _server("database", "tables", partial(_database, settings)),
        _finding("provider", lambda: _provider(settings), provider_address),
        _finding("data folder", lambda: asyncio.to_thread(_data_folder, settings.data_dir)),
    )
    return [*kafka, *postgres, provider, data_folder]


async def _finding(name: str, check: Check, where: str = "") -> Finding:
    """`where` is the address to name when it does not answer in time."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return Finding(name, True, await check())
    except TimeoutError:
        detail = f"no answer{where and f' from {where}'} within {TIMEOUT_S:g} s"
    except Fatal as error:
        detail = ": ".join(part for part in (error.what, error.why) if part)
        detail += f"; {error.hint}" if error.hint else ""
    except Retryable as error:
        detail = error.detail
    except KafkaError as error:
        detail = describe_broker_error(error)
    except (OSError, asyncpg.PostgresError) as error:
        detail = str(error) or type(error).__name__
    except Exception as error:  # messages of other errors may quote an address with its password
        detail = type(error).__name__
    return Finding(name, False, " ".join(detail.split()))


async def _server(
    name: str,
    contents: str,
    connect: Callable[[AsyncExitStack], Awaitable[tuple[str, Check]]],
    where: str = "",
) -> list[Finding]:
    """Checks a server, then what is in it; `connect` returns what it found and the second check."""
    async with AsyncExitStack() as stack:
        checks: list[Check] = []

        async def reach() -> str:
            detail, check = await connect(stack)
            checks.append(check)
            return detail

        found = await _finding(name, reach, where)
        if not checks:
            return [found, Finding(contents, False, f"not checked, since the {name} cannot be used")]
        return [found, await _finding(contents, checks[0], where)]


async def _brokers(settings: Settings, stack: AsyncExitStack) -> tuple[str, Check]:
    options = {**client_options(settings), "request_timeout_ms": REQUEST_TIMEOUT_MS}
    reader = OffsetReader(options, settings.topics)
    await reader.start()
    stack.push_async_callback(reader.stop)

    async def topics() -> str:
        notes = await check_configs(options, settings.topics)
        partitions = await count_partitions(reader, settings.topics)
        return "; ".join([f"all exist; the input topics have {partitions} partitions each", *notes])

    return str(settings.kafka_bootstrap_servers), topics


async def _database(settings: Settings, stack: AsyncExitStack) -> tuple[str, Check]:
    assert settings.database_url is not None, "load_settings requires it"
    database = parse_database_url(settings.database_url.get_secret_value())
    try:
        connection = await database.connect("grok-insights check")
        stack.callback(connection.terminate)
        version = await connection.fetchval("SHOW server_version")
    except CONNECTION_ERRORS as error:
        raise database.failure(error) from error

    async def tables() -> str:
        state = await _migrations(connection)
        try:
            async with connection.transaction():  # the setting must not stay with a pooler's connection
                await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                await check_can_write(connection)
        except CONNECTION_ERRORS as error:
            is_refused = isinstance(error, asyncpg.InsufficientPrivilegeError)
            if is_refused and (missing := await connection.fetch(_MISSING_RIGHTS)):
                rights = " and ".join(row["rights"] for row in missing)
                hint = f"as the owner of the tables, run: {'; '.join(row['statement'] for row in missing)}"
                raise Fatal("this user lacks rights that a worker needs", rights, hint) from error
            raise database.fatal(error, "a worker could not write to the tables") from error
        return f"{state}; this user has the rights that a worker needs"

    return f"PostgreSQL {version}", tables


async def _migrations(connection: asyncpg.Connection) -> str:
    """Returns which migrations were applied, as far as this user may know. Raises Fatal when some are missing."""
    if schema := await connection.fetchval(_CLOSED_SCHEMA):
        statement = f"GRANT USAGE ON SCHEMA {schema} TO {await connection.fetchval('SELECT quote_ident(current_user)')}"
        hint = f"as the owner of the schema, run: {statement}"
        raise Fatal("this user may not use the schema of the tables", schema, hint)
    try:
        applied = {row["version"] for row in await connection.fetch("SELECT version FROM schema_migrations")}
    except asyncpg.UndefinedTableError:
        applied = set()
    except asyncpg.InsufficientPrivilegeError:
        return "schema_migrations is not readable by this user; checked the tables instead"
    known = {path.name.partition("_")[0] for path in infra("postgres").glob("*.sql")}
    if missing := sorted(known - applied):
        raise Fatal("migrations are missing", ", ".join(missing), "run `grok-insights migrate`")
    return f"up to date, at {max(applied)}"


async def _provider(settings: Settings) -> str:
    analyser = build_analyser(settings, _at_once)
    if not isinstance(analyser, GrokAnalyser):
        return "none: the local analyser is used"
    await analyser.start()
    try:
        await analyser.check()
    finally:
        await analyser.stop()
    return f"{settings.grok_base_url} accepts the key and has the model {settings.grok_model}"


async def _at_once() -> None:
    """Allows the request without a lease: it costs no tokens."""


def _data_folder(folder: Path) -> str:
    """Whether the worker can write to the folder, or create it."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:  # permissions do not tell: root has them all, also where nothing can be created
        os.rmdir(tempfile.mkdtemp(prefix=".grok-insights-check-", dir=existing))
    except OSError as error:
        hint = "set DATA_DIR to a folder that this user can write"
        raise Fatal(f"{existing} cannot be written", error.strerror or "", hint) from error
    return str(folder) if existing == folder.absolute() else f"{folder}, which the worker will create"
