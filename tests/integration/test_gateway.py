"""The gateway's process parts against a real broker and a real Postgres: stored means stored, and outages pass."""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from schemas.errors import Fatal
from schemas.settings import Settings
from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.ports import free_port
from streams.dev.local.postgres import Postgres
from streams.dev.local.process import ProcessLog
from streams.gateway.main import run_gateway
from streams.kafka.admin import create_topics
from streams.kafka.clients import client_options
from streams.postgres.migrations import migrate_database
from tests.fakes.gateway import FakeLag
from tests.support.topic_log import records_of
from tests.support.topics import TOPICS
from tests.support.waiting import eventually

PATH = "/api/v1/conversations"
JSON = {"Content-Type": "application/json"}
DEADLINE_S = 30
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)

# The gateway as a process of its own, as `grok-insights gateway` runs it, but for the source of the lag.
PROGRAM = """
import uvloop
from schemas.settings import load_settings
from streams.gateway.main import run_gateway
from streams.telemetry.log import configure_logging
from tests.fakes.gateway import FakeLag
configure_logging()
uvloop.run(run_gateway(load_settings(), FakeLag()))
"""


on_tansu = pytest.mark.parametrize("broker", ["tansu"], indirect=True)
on_kafka = pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)


@pytest.fixture
async def settings(broker: Tansu | Kafka, database_url: str) -> Settings:
    """For a gateway on a broker with topics and a database of its own."""
    await _make_topics(broker)
    return _settings(broker.bootstrap_servers, database_url)


async def _make_topics(broker: Tansu | Kafka) -> None:
    await create_topics({"bootstrap_servers": broker.bootstrap_servers}, TOPICS, 4, 1)


def _settings(servers: str, database_url: str, **more: Any) -> Settings:
    return Settings(
        _env_file=None,
        kafka_bootstrap_servers=servers,
        database_url=database_url,
        gateway_port=free_port(),
        rate_limit_per_minute=1_000_000,
        **more,
    )


@asynccontextmanager
async def _gateway(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """A gateway in this process, alive; it ends as if by SIGTERM but without one."""
    running = asyncio.create_task(run_gateway(settings, FakeLag()))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{settings.gateway_port}") as session:
            await _until(session, "/livez", 200)
            yield session
    finally:
        running.cancel()
        await asyncio.wait([running])


async def _until(session: aiohttp.ClientSession, path: str, status: int) -> dict[str, Any]:
    """The JSON of `path` once it answers with `status`."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                async with session.get(path) as response:
                    if response.status == status:
                        answer: dict[str, Any] = await response.json(content_type=None)
                        return answer
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)


async def _post(session: aiohttp.ClientSession, **conversation: Any) -> tuple[int, dict[str, Any]]:
    async with session.post(PATH, json=conversation) as response:
        return response.status, await response.json(content_type=None)


async def _post_until_accepted(session: aiohttp.ClientSession, **conversation: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            status, _ = await _post(session, **conversation)
            if status == 202:
                return
            await asyncio.sleep(0.05)


async def _topic(broker: Tansu | Kafka) -> dict[str, Any]:
    """Every record of `conversations` by the id in its value."""
    records = await records_of(broker.bootstrap_servers, TOPICS.conversations)
    return {json.loads(record.value)["id"]: record for record in records}


@on_tansu
async def test_every_202_is_in_the_topic(broker: Tansu, settings: Settings) -> None:
    """300 conversations at once: each confirmed one is in the topic under its text key, with its headers."""
    async with _gateway(settings) as session:
        await _until(session, "/readyz", 200)
        answers = await asyncio.gather(*(_post(session, id=f"c-{n}", text=f"text number {n % 50}") for n in range(300)))
    assert {status for status, _ in answers} == {202}
    records = await _topic(broker)
    assert records.keys() == {f"c-{n}" for n in range(300)}
    assert records["c-1"].key == records["c-51"].key
    assert records["c-1"].partition == records["c-51"].partition
    assert dict(records["c-1"].headers)["tenant"] == b"default"


async def test_the_gateway_lives_before_and_after_its_dependencies(tmp_path: Path) -> None:
    """Without broker and Postgres it is alive, unready and refuses with 503; it recovers by itself."""
    log = ProcessLog(tmp_path / "stack.log")
    tansu, database = Tansu(tmp_path, log), Postgres(tmp_path, log)
    await asyncio.to_thread(database.start)
    await asyncio.to_thread(migrate_database, database.url)
    await asyncio.to_thread(database.stop)
    try:
        async with _gateway(_settings(tansu.bootstrap_servers, database.url)) as session:
            assert (await _until(session, "/readyz", 503))["failing"] == ["broker", "database"]
            status, answer = await _post(session, text="hello there")
            assert (status, answer["code"]) == (503, "broker_unavailable")
            assert tansu.bootstrap_servers not in str(answer), "clients do not learn where the brokers are"

            async def is_named() -> bool:
                why = f"no connection to {tansu.bootstrap_servers}: Connection refused; check KAFKA_BOOTSTRAP_SERVERS"
                return why in (await _until(session, "/readyz", 503))["checks"]["broker"]

            await eventually(is_named, what="/readyz names the broker's address and the cause")
            async with session.get("/api/v1/insights") as response:
                assert (response.status, "Retry-After" in response.headers) == (503, True)
            await asyncio.to_thread(tansu.start)
            await _make_topics(tansu)
            await asyncio.to_thread(database.start)
            await _until(session, "/readyz", 200)
            assert (await _post(session, text="hello there"))[0] == 202
    finally:
        tansu.stop()
        database.stop()
        log.close()


@on_tansu
async def test_a_broker_that_was_killed_and_forgot_everything_is_found_again(broker: Tansu, settings: Settings) -> None:
    """A producer whose sequence the new broker does not know is replaced; what is accepted afterwards is stored."""
    async with _gateway(settings) as session:
        await _until(session, "/readyz", 200)
        await asyncio.gather(*(_post(session, id=f"old-{n}", text=f"text {n}") for n in range(20)))
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await _until(session, "/readyz", 503)
        await asyncio.to_thread(broker.launch)
        await asyncio.to_thread(broker.await_ready)
        await _make_topics(broker)
        await asyncio.gather(*(_post_until_accepted(session, id=f"new-{n}", text=f"text {n}") for n in range(20)))
    assert {f"new-{n}" for n in range(20)} <= (await _topic(broker)).keys()


@pytest.mark.slow
@on_tansu
async def test_a_frozen_broker_is_503_in_time_and_loses_nothing(broker: Tansu, settings: Settings) -> None:
    """The deadline of 10 s holds; liveness does not flip; after the thaw all that was accepted is there."""
    assert broker.pid is not None
    async with _gateway(settings) as session:
        await _post_until_accepted(session, id="before", text="hello there")
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(15):
                status, answer = await _post(session, id="during", text="hello there")
            assert (status, answer["code"]) == (503, "broker_unavailable")
            assert (await _until(session, "/readyz", 503))["failing"] == ["broker"]
            await _until(session, "/livez", 200)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        await _post_until_accepted(session, id="after", text="hello there")
    assert {"before", "after"} <= (await _topic(broker)).keys()


@on_kafka
async def test_every_202_survives_a_killed_kafka(broker: Kafka, settings: Settings) -> None:
    """Clients post while Apache Kafka is killed and restarted: confirmed conversations are in the topic, and all
    clients continue."""
    accepted: set[str] = set()
    async with _gateway(settings) as session:
        await _until(session, "/readyz", 200)
        clients = [asyncio.create_task(_keep_posting(session, name, accepted)) for name in range(20)]
        await _more_accepted(accepted, 200)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await _until(session, "/readyz", 503)
        await asyncio.to_thread(broker.launch)
        await asyncio.to_thread(broker.await_ready)
        await _more_accepted(accepted, 200)
        for client in clients:
            client.cancel()
        await asyncio.wait(clients)
    assert accepted <= (await _topic(broker)).keys()


async def _keep_posting(session: aiohttp.ClientSession, client: int, accepted: set[str]) -> None:
    for number in itertools.count():
        status, answer = await _post(session, id=f"{client}-{number}", text=f"text {number} of {client}")
        if status == 202:
            accepted.add(answer["id"])


async def _more_accepted(accepted: set[str], more: int) -> None:
    """Returns when `more` ids have come on top of those that are there."""
    wanted = len(accepted) + more
    async with asyncio.timeout(DEADLINE_S):
        while len(accepted) < wanted:
            await asyncio.sleep(0.02)


async def _insert(url: str, tenant: str, conversation_id: str, occurred_at: datetime, **columns: Any) -> None:
    fields: dict[str, Any] = {
        "tenant": tenant,
        "conversation_id": conversation_id,
        "outcome": "analysed",
        "sentiment": "negative",
        "sentiment_score": -0.5,
        "topics": ["refund"],
        "intent": "complaint",
        "urgency": "high",
        "summary": "Wants the money back",
        "action_needed": True,
        "confidence": 0.9,
        "language": "en",
        "extra": '{"plan": "pro"}',
        "source": "app",
        "occurred_at": occurred_at,
        "received_at": NOON,
        "analysed_at": NOON,
        "origin_topic": "conversations",
        "origin_partition": 0,
        "origin_offset": 0,
    } | columns
    places = ", ".join(f"${number}" for number in range(1, len(fields) + 1))
    connection = await asyncpg.connect(url)
    try:
        sql = f"INSERT INTO insights ({', '.join(fields)}) VALUES ({places})"  # noqa: S608 - our own names
        await connection.execute(sql, *fields.values())
    finally:
        await connection.close()


@pytest.fixture
async def rows(database_url: str) -> None:
    """Seven insights of ours, equal times among them, one filtered conversation, and another tenant's."""
    for n in range(7):
        await _insert(database_url, "default", f"c-{n}", NOON + timedelta(microseconds=n // 3))
    plain = dict.fromkeys(("sentiment", "topics", "extra", "source", "urgency"), None)
    await _insert(
        database_url, "default", "f-1", NOON - timedelta(days=1), outcome="filtered", reason="too_short", **plain
    )
    await _insert(database_url, "other", "secret", NOON)


async def _ids(session: aiohttp.ClientSession, **query: str) -> list[str]:
    """The ids of all pages of two."""
    found: list[str] = []
    while True:
        async with session.get("/api/v1/insights", params={"limit": "2", **query}) as response:
            answer = await response.json()
        found += [item["id"] for item in answer["items"]]
        if answer["next_cursor"] is None:
            return found
        query["cursor"] = answer["next_cursor"]


@on_tansu
@pytest.mark.usefixtures("rows")
async def test_insights_are_read_from_postgres(settings: Settings) -> None:
    """One by id, pages with each row once, every filter, and never another tenant's row."""
    async with _gateway(settings) as session:
        async with session.get(f"{PATH}/c-1") as response:
            answer = await response.json()
        assert (answer["insight"]["topics"], answer["insight"]["extra"]) == (["refund"], {"plan": "pro"})
        async with session.get(f"{PATH}/f-1") as response:
            assert await response.json() == {"id": "f-1", "outcome": "filtered", "reason": "too_short"}
        async with session.get(f"{PATH}/secret") as response:
            assert response.status == 404
        ours = [f"c-{n}" for n in reversed(range(7))]
        assert await _ids(session) == [*ours, "f-1"]
        assert await _ids(session, outcome="filtered") == ["f-1"]
        assert await _ids(session, since="2026-01-31T12:00:00.000001Z", until="2026-01-31T13:00:00.000001+01:00") == []
        everything = {"sentiment": "negative", "topic": "refund", "urgency": "high", "source": "app"}
        assert await _ids(session, **everything, since="2026-01-31T12:00:00Z") == ours


@asynccontextmanager
async def _process(settings: Settings) -> AsyncIterator[tuple[asyncio.subprocess.Process, aiohttp.ClientSession]]:
    """The gateway as a process, ready, and a session with it."""
    assert settings.database_url is not None
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers or "",
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "GATEWAY_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM), env=environment, cwd="/", stderr=asyncio.subprocess.PIPE
    )
    try:
        port = (await _event(process, "gateway_listening"))["port"]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            await _until(session, "/readyz", 200)
            yield process, session
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _event(process: asyncio.subprocess.Process, name: str) -> dict[str, Any]:
    """The next event of this name in the process's log, all of whose lines are JSON."""
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        while True:
            event: dict[str, Any] = json.loads(await process.stderr.readline())
            if event["event"] == name:
                return event


@on_tansu
async def test_sigterm_finishes_requests_in_flight(broker: Tansu, settings: Settings) -> None:
    """A request whose body is still arriving gets a 202 and is stored; then the process ends with 0."""
    async with _process(settings) as (process, session):
        async with session.post(PATH, data=_slow_body(process), headers=JSON, expect100=True) as response:
            assert (response.status, response.headers["Connection"]) == (202, "close")
        await _event(process, "gateway_stopped")
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 0
    assert "slow" in await _topic(broker)


@on_tansu
async def test_a_second_signal_ends_the_process_at_once(settings: Settings) -> None:
    """An operator need not wait for the drain."""
    async with _process(settings) as (process, session):
        with pytest.raises(aiohttp.ClientError):
            await session.post(PATH, data=_slow_body(process, signals=2), headers=JSON, expect100=True)
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == -signal.SIGTERM


async def _slow_body(process: asyncio.subprocess.Process, *, signals: int = 1) -> AsyncIterator[bytes]:
    """A body in two parts; between them the gateway gets its stop signal."""
    yield b'{"id": "slow", '
    process.terminate()
    await _event(process, "gateway_stopping")
    if signals == 2:
        process.terminate()
        await process.wait()
    yield b'"text": "hello there"}'


@on_tansu
async def test_a_port_in_use_is_explained(settings: Settings) -> None:
    """The second gateway on a port fails with the setting to change."""
    async with _gateway(settings):
        with pytest.raises(Fatal) as caught:
            await run_gateway(settings, FakeLag())
    assert "GATEWAY_PORT" in caught.value.hint


def test_the_login_reaches_the_client_options() -> None:
    """SASL over TLS takes its user, password and context from the settings."""
    login = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "u", "kafka_sasl_password": "p"}
    options = client_options(_settings("broker:9092", "postgresql://x", **login))
    assert options.pop("ssl_context") is not None
    assert options == {
        "bootstrap_servers": "broker:9092",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }
