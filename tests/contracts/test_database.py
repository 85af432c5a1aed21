"""Connections as DATABASE_URL describes them, to a real server: TLS, several hosts, schema and parameters."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from schemas.errors import Fatal, Retryable
from streams.dev.local.ports import free_port
from streams.dev.local.postgres import Postgres
from streams.postgres.database import parse_database_url
from streams.postgres.migrations import migrate_database
from streams.sinks.rows import RowSink
from tests.support.factories import a_result, result_jobs
from tests.support.servers import make_certificate, running_pgbouncer

_TLS_FILES = (("cert", "crt"), ("key", "key"))


@pytest.fixture
def tls_url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a server that accepts only TLS: PgBouncer, since the Postgres of the local stack has none.

    Its certificate, for 127.0.0.1, is server.crt in `tmp_path`; other.crt signed nothing.
    """
    for name in ("server", "other"):
        make_certificate(tmp_path, name)
    (tmp_path / "server.key").chmod(0o644)  # PgBouncer runs as another user where root runs the tests
    files_of_server = [f"client_tls_{kind}_file = {tmp_path}/server.{name}" for kind, name in _TLS_FILES]
    with running_pgbouncer(database_url, tmp_path, "client_tls_sslmode = require", *files_of_server) as url:
        yield url


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
async def test_tls_is_used_and_verified(tls_url: str, tmp_path: Path, mode: str) -> None:
    """By the worker's client and by the one of migrations."""
    url = f"{tls_url}?sslmode={mode}&sslrootcert={tmp_path}/server.crt"
    sink = RowSink(url)
    await sink.start()
    await sink.stop()
    assert not any("Applied" in line for line in await asyncio.to_thread(migrate_database, url))


async def test_a_certificate_of_another_issuer_ends_the_start(tls_url: str, tmp_path: Path) -> None:
    """Waiting would not change it."""
    url = f"{tls_url}?sslmode=verify-full&sslrootcert={tmp_path}/other.crt"
    with pytest.raises(Fatal) as caught:
        await RowSink(url).start()
    assert "cannot be verified" in caught.value.why
    with pytest.raises(Fatal) as caught:
        await asyncio.to_thread(migrate_database, url)
    assert "cannot be verified" in caught.value.why


async def test_the_next_host_is_used_when_one_does_not_answer(postgres: Postgres, database_url: str) -> None:
    """By rows and by migrations."""
    dead = f"127.0.0.1:{free_port()}"
    url = database_url.replace("@", f"@{dead},")
    sink = RowSink(url)
    await sink.start()
    assert len((await sink.write(result_jobs(a_result()))).stored) == 1
    await sink.stop()
    assert not any("Applied" in line for line in await asyncio.to_thread(migrate_database, url))


async def test_of_several_hosts_one_that_only_reads_is_passed_over(postgres: Postgres, database_url: str) -> None:
    """The reason says so when there is no other."""
    name = database_url.rpartition("/")[2].partition("?")[0]
    await _execute(postgres.url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(Retryable, match="matches target_session_attrs"):
        await RowSink(database_url.replace("@", f"@127.0.0.1:{free_port()},")).start()


async def test_tables_may_be_in_a_schema_of_their_own(postgres: Postgres, database_url: str) -> None:
    """Migrations make them there, and rows go there."""
    await _execute(database_url, 'CREATE SCHEMA "own"')
    url = f"{database_url}&schema=own"
    assert any("Applied" in line for line in await asyncio.to_thread(migrate_database, url))
    sink = RowSink(url)
    await sink.start()
    await sink.write(result_jobs(a_result()))
    await sink.stop()
    connection = await asyncpg.connect(database_url)
    query = "SELECT (SELECT count(*) FROM own.insights), (SELECT count(*) FROM public.insights)"
    assert tuple(await connection.fetchrow(query)) == (1, 0)
    await connection.close()


async def test_the_applications_name_and_options_reach_the_server(database_url: str) -> None:
    """Without application_name, the program's own name is used."""
    for query, expected in (("", "test"), ("&application_name=a%20b&options=-c%20geqo%3Doff", "a b")):
        connection = await parse_database_url(f"{database_url}{query}").connect("test")
        assert await connection.fetchval("SHOW application_name") == expected
        assert await connection.fetchval("SHOW geqo") == ("off" if query else "on")
        await connection.close()
