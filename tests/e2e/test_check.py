"""`grok-insights check`: one line for everything that a worker needs, and an exit code to match."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.dev.local.ports import free_port
from streams.dev.local.postgres import Postgres
from streams.kafka.admin import topic_configs
from streams.postgres.migrations import migrate_database
from tests.e2e.roles import WORKER_GRANTS, execute, url_of
from tests.support.processes import PARTITIONS, ROOT, Service
from tests.support.servers import UNKNOWN_HOST, running, silent_server, tansu_advertising

pytestmark = pytest.mark.parametrize("broker", ["tansu"], indirect=True)

NAMES = ["brokers", "topics", "database", "tables", "provider", "data folder"]
SECRET = "canary-of-a-key"


def check(service: Service, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **service.settings, **settings}
    command = [sys.executable, "-m", "streams", "check", *arguments]
    return subprocess.run(
        command, cwd=service.folder, env=environment, capture_output=True, text=True, timeout=90, check=False
    )


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    document = json.loads(done.stdout)
    assert (done.returncode == 0) == document["ok"] == all(finding["ok"] for finding in document["checks"])
    assert SECRET not in done.stdout + done.stderr
    return {finding["name"]: finding["detail"] for finding in document["checks"] if not finding["ok"]}


def test_all_is_well(service: Service) -> None:
    """There is a line for each check, and nothing is changed or paid for."""
    service.start_standin("--api-key", SECRET, "--model", "standin")
    done = check(service, XAI_API_KEY=SECRET, DATA_DIR="new")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert (done.returncode, [name for name, _, _ in lines]) == (0, NAMES)
    assert {state for _, state, _ in lines} == {"ok"}
    assert f"{PARTITIONS} partitions" in lines[1][2]
    assert SECRET not in done.stdout + done.stderr
    assert service.standin("control/stats")["calls"] == 0
    assert [path.name for path in service.folder.iterdir() if "new" in path.name or "check" in path.name] == []
    assert findings(check(service, "--json", XAI_API_KEY=SECRET)) == {}


def test_each_wrong_setting_is_named(bare_service: Service, postgres: Postgres) -> None:
    """All are named in one run, each with what to do."""
    service = bare_service
    service.start_standin("--api-key", "another", "--model", "standin")
    (service.folder / "file").write_text("")
    closed = f"127.0.0.1:{free_port()}"
    failed = findings(
        check(
            service,
            "--json",
            KAFKA_BOOTSTRAP_SERVERS=closed,
            DATABASE_URL=postgres.url,
            XAI_API_KEY=SECRET,
            DATA_DIR=str(service.folder / "file" / "data"),
        )
    )
    assert list(failed) == ["brokers", "topics", "tables", "provider", "data folder"]
    assert failed["brokers"].startswith(f"no connection to {closed}: Connection refused; check KAFKA_BOOTSTRAP_SERVERS")
    assert failed["tables"] == "migrations are missing: 0001, 0002, 0003; run `grok-insights migrate`"
    assert failed["provider"].startswith(f"check XAI_API_KEY: 127.0.0.1:{service.standin_port} answered with status ")
    assert failed["provider"].endswith(": Incorrect API key provided.")
    assert "DATA_DIR" in failed["data folder"]


async def test_a_topic_that_would_lose_records_is_named(bare_service: Service) -> None:
    """An administrator created the changelog of the answers without its configuration."""
    changelog = bare_service.topics.answers_changelog
    admin = AIOKafkaAdminClient(bootstrap_servers=bare_service.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(changelog, PARTITIONS, 1, topic_configs={"cleanup.policy": "delete"})])
    for topic, config in topic_configs(bare_service.topics).items():
        if topic != changelog:
            await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=config)])
    await admin.close()
    failed = findings(await asyncio.to_thread(check, bare_service, "--json", ANALYSER="local"))
    assert list(failed) == ["topics"]
    assert f"{changelog} has cleanup.policy=delete, not compact; " in failed["topics"]


@pytest.mark.parametrize("url", [f"postgresql://user:{SECRET}@127.0.0.1:1/none", f"mysql://user:{SECRET}@host/none"])
def test_a_database_that_cannot_be_used_is_named_without_its_password(service: Service, url: str) -> None:
    """Its tables are not checked then; without a key no provider is asked."""
    failed = findings(check(service, "--json", DATABASE_URL=url, ANALYSER="local"))
    assert list(failed) == ["database", "tables"]


async def test_a_user_with_a_workers_rights_passes(service: Service, database_url: str, role: str) -> None:
    """The migrations are not among them: what could not be read is said."""
    await execute(database_url, WORKER_GRANTS.format(role))
    done = await asyncio.to_thread(check, service, "--json", DATABASE_URL=url_of(database_url, user=role))
    assert findings(done) == {}
    assert "schema_migrations is not readable by this user; checked the tables instead" in done.stdout


async def test_missing_rights_are_named_with_the_statements_that_grant_them(
    service: Service, database_url: str, role: str
) -> None:
    """All of them at once; after the statements nothing is missing."""
    await execute(database_url, f"GRANT SELECT ON insights TO {role}")
    service.settings["DATABASE_URL"] = url_of(database_url, user=role)
    failed = findings(await asyncio.to_thread(check, service, "--json"))
    assert list(failed) == ["tables"]
    finding, _, statements = failed["tables"].partition("; as the owner of the tables, run: ")
    assert finding == "this user lacks rights that a worker needs: INSERT, UPDATE on insights and INSERT on calls"
    await execute(database_url, statements)
    assert findings(await asyncio.to_thread(check, service, "--json")) == {}


async def test_old_tables_are_found_without_the_right_to_read_migrations(
    service: Service, database_url: str, role: str
) -> None:
    """By what a worker would write into them."""
    await execute(database_url, "ALTER TABLE insights DROP COLUMN repairs", WORKER_GRANTS.format(role))
    failed = findings(await asyncio.to_thread(check, service, "--json", DATABASE_URL=url_of(database_url, user=role)))
    assert list(failed) == ["tables"]
    assert failed["tables"].startswith('a worker could not write to the tables: column "repairs" ')
    assert "grok-insights migrate" in failed["tables"]


async def test_a_schema_that_the_user_may_not_use_is_named(service: Service, database_url: str, role: str) -> None:
    """Postgres itself would say that there are no tables."""
    await execute(database_url, 'CREATE SCHEMA "own"')
    await asyncio.to_thread(migrate_database, f"{database_url}&schema=own")
    await execute(database_url, "SET search_path = own", WORKER_GRANTS.format(role))
    service.settings["DATABASE_URL"] = f"{url_of(database_url, user=role)}&schema=own"
    failed = findings(await asyncio.to_thread(check, service, "--json"))
    assert list(failed) == ["tables"]
    finding, _, statement = failed["tables"].partition("; as the owner of the schema, run: ")
    assert finding == "this user may not use the schema of the tables: own"
    await execute(database_url, statement)
    assert findings(await asyncio.to_thread(check, service, "--json")) == {}


@pytest.mark.parametrize("schema", ["{}", "Own tables"], ids=["named as the user", "quoted"])
async def test_a_schema_of_the_users_search_path_is_named(
    service: Service, database_url: str, role: str, schema: str
) -> None:
    """As Postgres understands the setting."""
    name = schema.format(role)
    await execute(
        database_url,
        f'CREATE SCHEMA "{name}"; ALTER TABLE insights SET SCHEMA "{name}"; ALTER TABLE calls SET SCHEMA "{name}"',
        f'ALTER TABLE schema_migrations SET SCHEMA "{name}"',
        f'ALTER ROLE {role} SET search_path = "$user", "Own tables", public',
    )
    service.settings["DATABASE_URL"] = url_of(database_url, user=role)
    failed = findings(await asyncio.to_thread(check, service, "--json"))
    assert list(failed) == ["tables"]
    quoted = name if name == role else f'"{name}"'
    assert failed["tables"].startswith(f"this user may not use the schema of the tables: {quoted}; ")


async def test_a_lock_on_the_tables_is_named(service: Service, database_url: str) -> None:
    """A migration or a VACUUM FULL holds one for as long as it runs."""
    service.start_standin()
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE insights IN ACCESS EXCLUSIVE MODE")
        failed = findings(await asyncio.to_thread(check, service, "--json"))
    await connection.close()
    assert list(failed) == ["tables"]
    assert failed["tables"].startswith(
        "a worker could not write to the tables: canceling statement due to lock timeout"
    )
    assert "wait for the session that holds a lock" in failed["tables"]


def test_an_advertised_address_that_never_answers_is_named(service: Service) -> None:
    """The bootstrap server answers, and is not to blame."""
    with silent_server() as port, running(tansu_advertising(f"127.0.0.1:{port}")) as broker:
        failed = findings(check(service, "--json", ANALYSER="local", KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap_servers))
    assert list(failed) == ["topics"]
    assert failed["topics"].startswith(
        f"no answer from 127.0.0.1:{port}; it is an address that the brokers advertise; "
    )
    assert "advertised.listeners" in failed["topics"]


@pytest.mark.slow
def test_servers_that_never_answer_are_named(service: Service) -> None:
    """Within ten seconds, all at once."""
    service.start_standin()
    with silent_server() as port:
        address = f"127.0.0.1:{port}"
        settings = {"KAFKA_BOOTSTRAP_SERVERS": address, "GROK_BASE_URL": f"http://{address}/v1"}
        failed = findings(check(service, "--json", **settings))
    assert failed["brokers"].startswith(f"no answer from {address}; check KAFKA_BOOTSTRAP_SERVERS")
    assert failed["provider"] == f"no answer from {address} within 10 s"


@pytest.mark.parametrize(
    ("host", "reason"),
    [("127.0.0.1", "no connection to {}: Connection refused"), (UNKNOWN_HOST, "unknown host {}: ")],
)
def test_a_provider_that_cannot_be_reached_is_named(service: Service, host: str, reason: str) -> None:
    """With its address and the cause."""
    service.start_standin()
    address = f"{host}:{free_port()}"
    failed = findings(check(service, "--json", GROK_BASE_URL=f"http://{address}/v1"))
    assert list(failed) == ["provider"]
    assert failed["provider"].startswith(reason.format(address))


def test_a_data_folder_that_cannot_be_created_is_named(service: Service) -> None:
    """Nothing can be created in /proc, though root has every right there."""
    failed = findings(check(service, "--json", ANALYSER="local", DATA_DIR="/proc/grok-insights"))
    assert list(failed) == ["data folder"]
    assert failed["data folder"].startswith("/proc cannot be written: ")


def test_missing_settings_are_misuse(service: Service, tmp_path: Path) -> None:
    """As with the worker itself."""
    del service.settings["DATABASE_URL"]
    done = check(service)
    assert (done.returncode, "DATABASE_URL: is required" in done.stderr) == (2, True)
