"""`grok-insights audit` on a real Apache Kafka and Postgres: right about what workers left behind, and about theft."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from schemas.topics import Topic
from streams.local.kafka import Kafka
from streams.local.ports import free_port
from tests.e2e.service import ROOT, Service

on_kafka = pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)


class Audited(Service):
    """The service, and the audit of it."""

    def audit(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "streams", "audit", *options]
        environment = {**self.settings, "PYTHONPATH": str(ROOT), "PATH": ""}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120)

    def document(self, *options: str) -> tuple[int, Any]:
        """Exit code and what --json says."""
        ended = self.audit("--json", *options)
        assert ended.stdout, ended.stderr
        return ended.returncode, json.loads(ended.stdout)


@pytest.fixture
def service(broker: Kafka, database_url: str, tmp_path: Path) -> Iterator[Audited]:
    service = Audited(tmp_path, broker.bootstrap_servers, database_url, ANALYSER="local")
    with service:
        service.run("topics")
        yield service


async def produce_mixed(broker: Kafka) -> dict[str, int]:
    """Good, repeated, low-value and broken records, half of them keyed by somebody else's rule; how many of each."""
    values = [json.dumps({"id": f"good-{n}", "text": f"parcel {n % 100} is late"}).encode() for n in range(300)]
    values += [json.dumps({"id": f"good-{n}", "text": f"parcel {n % 100} is still late"}).encode() for n in range(40)]
    values += [json.dumps({"id": f"hi-{n}", "text": "Hello!"}).encode() for n in range(30)]
    values += [b"not json %d" % n for n in range(20)] + [b'{"id":"x","colour":1}'] * 10
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all") as producer:
        for number, value in enumerate(values):
            await producer.send(Topic.CONVERSATIONS, value, key=b"%d" % number)
        await producer.flush()
    return {"records": 400, "repeated": 40, "filtered": 30, "dead": 30, "distinct": 330}


@on_kafka
async def test_the_books_of_a_worker_balance_until_somebody_cooks_them(
    service: Audited, broker: Kafka, database_url: str
) -> None:
    """Every kind of record is told, a stolen row is missed by its id and offset, a planted one is found."""
    made = await produce_mixed(broker)
    code, before = service.document()
    assert (code, before["total"]["pending"]) == (0, made["records"])
    assert service.document("--strict")[0] == 1

    worker = service.start_worker("worker-1")
    code, told = service.document("--wait", "60", "--strict")
    assert (code, told["balanced"], told["faults"]) == (0, True, [])
    total = told["total"]
    assert total["analysed"] + total["cached"] == 300
    assert {name: total[name] for name in ("records", "repeated", "filtered", "dead")} == {
        name: made[name] for name in ("records", "repeated", "filtered", "dead")
    }
    assert told["ids"] == {"distinct": made["distinct"], "repeats": made["repeated"], "nameless": 30}
    assert told["copies"]["read"] > 0
    assert sum(line["records"] for line in told["partitions"]) == made["records"]
    assert worker.stop() == 0

    connection = await asyncpg.connect(database_url)
    stolen: Any = await connection.fetchrow("DELETE FROM insights WHERE conversation_id = 'good-77' RETURNING *")
    await connection.execute(
        "INSERT INTO insights (tenant, conversation_id, outcome, occurred_at, received_at, analysed_at, origin_topic,"
        " origin_partition, origin_offset) VALUES ('default', 'planted', 'analysed', now(), now(), now(),"
        " 'conversations', 0, 0)"
    )
    await connection.close()
    code, told = service.document()
    assert (code, told["wrong"]) == (1, {"missing": 1, "invented": 1})
    missing, invented = told["faults"]
    place = (missing["topic"], missing["partition"], missing["offset"])
    assert (missing["id"], *place) == (
        "good-77",
        *(stolen[f"origin_{name}"] for name in ("topic", "partition", "offset")),
    )
    assert (invented["id"], invented["partition"], invented["offset"]) == ("planted", 0, 0)

    plain = service.audit("--show", "1")
    assert plain.returncode == 1
    assert plain.stdout.splitlines()[-1] == "the books do not balance: 1 missing, 1 invented"
    assert "default:good-77" in plain.stdout
    assert "planted" not in plain.stdout
    assert "parcel" not in plain.stdout + plain.stderr


@on_kafka
async def test_the_books_balance_at_any_time(service: Audited, broker: Kafka) -> None:
    """While records come, while workers work, and after one was killed: what is not proven yet is pending."""
    workers = [service.start_worker(name) for name in ("worker-1", "worker-2")]
    for worker in workers:
        await produce_mixed(broker)
        code, told = service.document()
        assert (code, told["wrong"]) == (0, {}), told["faults"]
        worker.kill()
    service.start_worker("worker-3")
    code, told = service.document("--wait", "60", "--strict")
    assert (code, told["wrong"], told["total"]["records"]) == (0, {}, 800), told["faults"]
    assert told["ids"]["distinct"] == 330


def test_without_a_broker_or_a_database_there_is_no_verdict(database_url: str, tmp_path: Path) -> None:
    """What, why and hint instead, and exit code 1."""
    closed = f"127.0.0.1:{free_port()}"
    for bootstrap_servers, url, what in (
        (closed, database_url, "the broker cannot be used"),
        (closed, f"postgresql://u:secret@{closed}/d", "the database cannot be used"),
        (closed, "postgresql://u:secret@[/d", "DATABASE_URL is no address of a database"),
    ):
        ended = Audited(tmp_path, bootstrap_servers, url).audit()
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.splitlines()[0] == f"error: {what}"
        assert "secret" not in ended.stderr
