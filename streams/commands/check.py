"""`grok-insights check`: whether a worker with these settings could start and work."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import asyncpg
import typer
from aiokafka.errors import KafkaError

from agents.grok.client import GrokAnalyser
from schemas.errors import Fatal, Retryable
from schemas.settings import Settings, load_settings
from streams.app import build_analyser
from streams.commands.output import print_json, run
from streams.kafka.clients import client_options
from streams.kafka.offset_reader import OffsetReader
from streams.resources import infra
from streams.telemetry.log import configure_logging
from streams.worker.rebalance import count_partitions

TIMEOUT_S = 10.0
_NAME_CHARS = 13


class Finding(NamedTuple):
    """The result of one check; `detail` is without secrets."""

    name: str
    ok: bool
    detail: str


def check(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Check brokers, topics, database, migrations, provider (key and model) and data folder.

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
        for finding in findings:
            state = "ok" if finding.ok else "failed"
            typer.echo(f"{finding.name:{_NAME_CHARS}}{state:8}{finding.detail}")
    if not is_ok:
        raise typer.Exit(1)


async def _check_all(settings: Settings) -> list[Finding]:
    """Checks all at once; a check whose server failed another one is not made."""
    kafka, postgres, provider, data_folder = await asyncio.gather(
        _brokers_and_topics(settings),
        _database_and_migrations(settings),
        _finding("provider", lambda: _provider(settings)),
        _finding("data folder", lambda: asyncio.to_thread(_data_folder, settings.data_dir)),
    )
    return [*kafka, *postgres, provider, data_folder]


async def _finding(name: str, look: Callable[[], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return Finding(name, True, await look())
    except TimeoutError:
        detail = f"no answer within {TIMEOUT_S:g} s"
    except Fatal as error:
        detail = ": ".join(part for part in (error.what, error.why) if part)
        detail += f"; {error.hint}" if error.hint else ""
    except Retryable as error:
        detail = error.detail
    except (KafkaError, OSError, asyncpg.PostgresError) as error:
        detail = str(error) or type(error).__name__
    except Exception as error:  # messages of other errors may quote an address with its password
        detail = type(error).__name__
    return Finding(name, False, " ".join(detail.split()))


async def _brokers_and_topics(settings: Settings) -> list[Finding]:
    reader: OffsetReader | None = None

    async def connect() -> str:
        nonlocal reader
        connecting = OffsetReader(client_options(settings), settings.topics)
        await connecting.start()
        reader = connecting
        return str(settings.kafka_bootstrap_servers)

    async def count() -> str:
        assert reader is not None, "counted after connecting"
        return f"all are there, the inputs with {await count_partitions(reader, settings.topics)} partitions each"

    try:
        brokers = await _finding("brokers", connect)
        if not brokers.ok:
            return [brokers, _not_made("topics", "the brokers")]
        return [brokers, await _finding("topics", count)]
    finally:
        if reader is not None:
            await reader.stop()


async def _database_and_migrations(settings: Settings) -> list[Finding]:
    connection: asyncpg.Connection | None = None

    async def connect() -> str:
        nonlocal connection
        assert settings.database_url is not None, "load_settings requires it"
        try:
            connection = await asyncpg.connect(settings.database_url.get_secret_value(), timeout=TIMEOUT_S)
        except ValueError:  # also asyncpg's ClientConfigurationError, whose words may quote the address
            raise Fatal("DATABASE_URL is not a valid PostgreSQL URL", "", "it starts with postgresql://") from None
        version = str(await connection.fetchval("SHOW server_version"))
        return f"PostgreSQL {version}"

    async def migrations() -> str:
        assert connection is not None, "asked after connecting"
        applied: set[str] = set()
        if await connection.fetchval("SELECT to_regclass('schema_migrations')") is not None:
            applied = {row["version"] for row in await connection.fetch("SELECT version FROM schema_migrations")}
        known = {path.name.partition("_")[0] for path in infra("postgres").glob("*.sql")}
        if missing := sorted(known - applied):
            raise Fatal("migrations are missing", ", ".join(missing), "run `grok-insights migrate`")
        return f"up to date, at {max(applied)}"

    try:
        database = await _finding("database", connect)
        if not database.ok:
            return [database, _not_made("migrations", "the database")]
        return [database, await _finding("migrations", migrations)]
    finally:
        if connection is not None:
            connection.terminate()


def _not_made(name: str, server: str) -> Finding:
    return Finding(name, False, f"not checked, since {server} cannot be used")


async def _provider(settings: Settings) -> str:
    analyser = build_analyser(settings, _at_once)
    if not isinstance(analyser, GrokAnalyser):
        return "none: the local analyser is used"
    await analyser.start()
    try:
        await analyser.check()
    finally:
        await analyser.stop()
    return f"{settings.grok_base_url} takes the key and has the model {settings.grok_model}"


async def _at_once() -> None:
    """Nothing forbids a request here: it costs no tokens."""


def _data_folder(folder: Path) -> str:
    """Whether the worker can write there, or make the folder."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise Fatal(f"{existing} cannot be written", "", "set DATA_DIR to a folder that this user can write")
    return str(folder) if existing == folder.absolute() else f"{folder}, which the worker will make"
