"""A database that cannot be used: every command says why, ends where waiting cannot help, and waits where it can."""

import asyncio
import json
import secrets
import time

import pytest

from streams.dev.local.postgres import Postgres
from tests.e2e.roles import GATEWAY_GRANTS, PASSWORD, WORKER_GRANTS, execute, url_of
from tests.support.processes import Process, Service, get
from tests.support.servers import silent_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["tansu"], indirect=True)

COMMANDS = {"worker": ("worker",), "gateway": ("gateway",), "migrate": ("migrate",), "audit": ("audit",)}
GIVES_UP_WITHIN_S = 30


def start_all(service: Service, url: str, *names: str) -> dict[str, Process]:
    """Starts the commands at once, which takes half of the time."""
    ports = {"WORKER_METRICS_PORT": "0", "GATEWAY_PORT": "0", "DATABASE_URL": url}
    return {name: service.start(name, *COMMANDS[name], **ports) for name in names}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong password", 'password authentication failed for user "'),
        pytest.param("wrong database", 'database "none" does not exist', marks=pytest.mark.slow),
        pytest.param("missing grant", "permission denied for", marks=pytest.mark.slow),
        pytest.param("no TLS", "has no TLS, which sslmode requires", marks=pytest.mark.slow),
    ],
)
async def test_what_waiting_cannot_fix_stops_every_command(
    service: Service, database_url: str, role: str, fault: str, reason: str
) -> None:
    """With exit code 1 and the server's own words; the password is not among them."""
    url = {
        "wrong password": url_of(database_url, user=role, password="wrong-kanari"),
        "wrong database": url_of(database_url, user=role, name="none"),
        "missing grant": url_of(database_url, user=role),
        "no TLS": url_of(database_url, query="sslmode=require"),
    }[fault]
    commands = start_all(service, url, *COMMANDS)
    codes = {name: await asyncio.to_thread(command.process.wait, 60) for name, command in commands.items()}
    assert codes == dict.fromkeys(COMMANDS, 1)
    for name, command in commands.items():
        text = command.log.read_text().replace("\\", "")
        assert reason in text, (name, text[-2000:])
        assert "kanari" not in text
        assert "Traceback" not in text


def test_an_unknown_host_is_waited_for_by_those_that_serve(service: Service) -> None:
    """It may appear later. One-off commands give up, with one sentence that names the host."""
    url, port = "postgresql://user:kanari@nowhere.invalid/none", service.free_port()
    began_s = time.monotonic()
    ending = start_all(service, url, "migrate", "audit")
    worker = service.start("worker", "worker", WORKER_METRICS_PORT=str(port), DATABASE_URL=url)
    assert [command.process.wait(GIVES_UP_WITHIN_S + 15) for command in ending.values()] == [1, 1]
    assert time.monotonic() - began_s < GIVES_UP_WITHIN_S + 15
    for command in ending.values():
        assert "why: unknown host nowhere.invalid:5432" in command.log.read_text()
    wait_until(lambda: "nowhere.invalid" in database_check(port), timeout_s=40, what="/readyz names the host")
    assert worker.process.poll() is None
    waits = [line for line in worker.log.read_text().splitlines() if "waiting_for_start" in line and "nowhere" in line]
    assert len(waits) <= 2  # of many attempts
    assert json.loads(waits[0])["why"].startswith("unknown host nowhere.invalid:5432")


async def test_a_password_that_changes_meanwhile_is_reported_and_waited_out(
    service: Service, database_url: str, postgres: Postgres, role: str
) -> None:
    """/readyz of worker and gateway and their logs report it, though not at each probe; the right password ends it."""
    await execute(database_url, WORKER_GRANTS.format(role))
    service.settings["DATABASE_URL"] = url_of(database_url, user=role)
    worker = await asyncio.to_thread(service.start_worker, "worker")
    await asyncio.to_thread(service.start_gateway)
    end_sessions = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"  # noqa: S608
    await execute(postgres.url, f"ALTER ROLE {role} PASSWORD 'other'", end_sessions)
    urls = (worker.url, service.gateway_url)
    for url in urls:
        expected = f'password authentication failed for user "{role}"'
        await until_check(url, expected)
    await execute(postgres.url, f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
    for url in urls:
        await until_check(url, "ok")
    for log in (worker.log, service.folder / "gateway.log"):
        # Of many probes; a reminder follows after 10 s, then after 20 s.
        assert sum("password authentication failed" in line for line in log.read_text().splitlines()) <= 4


async def test_migrate_names_the_statement_that_it_needs(service: Service, postgres: Postgres, role: str) -> None:
    """With it, the same user can migrate."""
    name = f"empty_{secrets.token_hex(4)}"
    await execute(postgres.url, f"CREATE DATABASE {name}")
    url = url_of(postgres.url, user=role, name=name)
    refused = service.start("refused", "migrate", DATABASE_URL=url)
    assert await asyncio.to_thread(refused.process.wait, 60) == 1
    text = refused.log.read_text()
    assert "permission denied for schema public" in text
    statement = text.rpartition(" hint: as the owner of the schema, run: ")[2].strip()
    assert statement == f"GRANT CREATE ON SCHEMA public TO {role}"
    await execute(url_of(postgres.url, name=name), statement)
    assert await asyncio.to_thread(service.start("granted", "migrate", DATABASE_URL=url).process.wait, 60) == 0


async def test_a_gateway_needs_the_grants_that_the_docs_name(service: Service, database_url: str, role: str) -> None:
    """It is ready with them; those of a worker are tested with `check`."""
    await execute(database_url, GATEWAY_GRANTS.format(role))
    service.settings["DATABASE_URL"] = url_of(database_url, user=role)
    await asyncio.to_thread(service.start_gateway)


@pytest.mark.parametrize("is_empty", [True, False])
async def test_a_gateway_waits_for_missing_tables(
    service: Service, postgres: Postgres, template_database: str, is_empty: bool
) -> None:
    """And for missing columns. It accepts conversations without them; /readyz names the command that helps."""
    name = f"old_{secrets.token_hex(4)}"
    url, port = url_of(postgres.url, name=name), service.free_port()
    await execute(postgres.url, f"CREATE DATABASE {name} TEMPLATE {'template1' if is_empty else template_database}")
    if not is_empty:
        await execute(
            url,
            "DROP TABLE calls; ALTER TABLE insights DROP COLUMN metadata, DROP COLUMN repairs",
            "DELETE FROM schema_migrations WHERE version >= '0003'",
        )
    service.start("gateway", "gateway", GATEWAY_PORT=str(port), DATABASE_URL=url)
    await until_check(f"http://127.0.0.1:{port}", "grok-insights migrate")
    assert await asyncio.to_thread(service.start("migrate", "migrate", DATABASE_URL=url).process.wait, 60) == 0
    await until_check(f"http://127.0.0.1:{port}", "ok")


def test_an_unusable_parameter_is_named_by_every_command(service: Service, database_url: str) -> None:
    """At once, with exit code 2, as other settings that are wrong."""
    commands = start_all(service, f"{database_url}&channel_binding=require&krbsrvname=x", *COMMANDS)
    assert {name: command.process.wait(60) for name, command in commands.items()} == dict.fromkeys(COMMANDS, 2)
    for command in commands.values():
        text = command.log.read_text()
        assert "krbsrvname is not supported; channel_binding must be disable or prefer" in text


@pytest.mark.slow
def test_migrate_and_topics_give_up_on_servers_that_do_not_answer(service: Service) -> None:
    """The server accepts the connection and sends nothing, as a frozen server or a wrong port does."""
    with silent_server() as port:
        address = f"127.0.0.1:{port}"
        migrate = service.start("migrate", "migrate", DATABASE_URL=f"postgresql://user:kanari@{address}/none")
        brokers = {"KAFKA_BOOTSTRAP_SERVERS": address, "KAFKA_SECURITY_PROTOCOL": "SSL"}
        topics = service.start("topics", "topics", **brokers)
        # A gateway waits, and says what for.
        gateway = service.start("gateway", "gateway", **brokers, GATEWAY_PORT="0")
        assert migrate.process.wait(GIVES_UP_WITHIN_S + 15) == 1
        assert topics.process.wait(GIVES_UP_WITHIN_S + 15) == 1
        assert gateway.process.poll() is None
    assert f"why: no answer from {address}\n" in migrate.log.read_text()
    assert f"why: no answer from {address} within 30 s\n" in topics.log.read_text()
    assert f"no answer from {address} within 10 s" in gateway.log.read_text()
    assert all("or KAFKA_SECURITY_PROTOCOL: " in process.log.read_text() for process in (topics, gateway))
    assert len(topics.log.read_text().split("error:")) == 2
    assert "Traceback" not in topics.log.read_text()


async def until_check(url: str, state: str) -> None:
    port = int(url.rpartition(":")[2])
    what = f"/readyz of {url} says {state!r}"
    await asyncio.to_thread(wait_until, lambda: state in database_check(port), timeout_s=40, what=what)


def database_check(port: int) -> str:
    """The state of the database in /readyz, "" while nothing listens."""
    status, body = get(f"http://127.0.0.1:{port}/readyz")
    return str(json.loads(body)["checks"]["database"]) if status else ""
