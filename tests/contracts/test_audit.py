"""`grok-insights audit` on real brokers and Postgres: it accepts what workers did, and finds what is wrong."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from schemas.errors import Fatal
from schemas.kafka import Header
from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.ports import free_port
from streams.kafka import scan as topic_scan
from streams.kafka.producer import ConfirmedProducer
from streams.operations.audit.findings import Reconciliation
from streams.operations.audit.reconcile import CompleteSince
from streams.operations.audit.run import TopicReader
from tests.support.processes import ROOT, Service
from tests.support.topics import TOPICS

#: Tansu closes the connection on DeleteRecords, so retention cannot be simulated there.
on_kafka = pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)

FIRST = TopicPartition(TOPICS.conversations, 0)


class Audited(Service):
    """The service and its audit."""

    def audit(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "streams", "audit", *options]
        environment = {**self.settings, "PYTHONPATH": str(ROOT), "PATH": ""}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120)

    def report(self, *options: str) -> tuple[int, Any]:
        """Returns the exit code and the JSON document."""
        ended = self.audit("--json", *options)
        assert ended.stdout, ended.stderr
        return ended.returncode, json.loads(ended.stdout)


@pytest.fixture
def service(broker: Kafka | Tansu, database_url: str, tmp_path: Path) -> Iterator[Audited]:
    service = Audited(tmp_path, broker.bootstrap_servers, database_url, ANALYSER="local")
    with service:
        service.run("topics")
        yield service


async def produce_mixed(broker: Kafka | Tansu) -> dict[str, int]:
    """Produces good, repeated, low-value and broken records; returns how many of each there are."""
    values = [json.dumps({"id": f"good-{n}", "text": f"parcel {n % 100} is late"}).encode() for n in range(300)]
    values += [json.dumps({"id": f"good-{n}", "text": f"parcel {n % 100} is still late"}).encode() for n in range(40)]
    values += [json.dumps({"id": f"hi-{n}", "text": "Hello!"}).encode() for n in range(30)]
    values += [b"not json %d" % n for n in range(15)] + [b'{"id":"x","colour":1}'] * 10
    values += [b'{"id":"good-%d","text":5}' % n for n in range(5)]
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all") as producer:
        for number, value in enumerate(values):
            await producer.send(TOPICS.conversations, value, key=b"%d" % number)
        await producer.flush()
    return {"records": 400, "duplicate": 54, "filtered": 30, "dead": 16, "distinct": 331}


async def test_a_workers_outcomes_are_reconciled_until_rows_are_tampered_with(
    service: Audited, broker: Kafka | Tansu, database_url: str
) -> None:
    """Every kind of record is counted, a deleted row is found by id and offset, and so is an inserted one."""
    made = await produce_mixed(broker)
    code, before = service.report()
    assert (code, before["total"]["pending"]) == (0, made["records"])
    assert service.report("--strict")[0] == 1

    worker = service.start_worker("worker-1")
    code, document = service.report("--wait", "60", "--strict")
    assert (code, document["balanced"], document["findings"]) == (0, True, [])
    total = document["total"]
    assert total["analysed"] + total["cached"] == 300
    assert {name: total[name] for name in ("records", "duplicate", "filtered", "dead")} == {
        name: made[name] for name in ("records", "duplicate", "filtered", "dead")
    }
    assert document["ids"] == {"distinct": made["distinct"], "repeats": made["duplicate"], "without_id": 15}
    assert document["copies"]["read"] > 0
    assert sum(line["records"] for line in document["partitions"]) == made["records"]
    assert worker.stop() == 0

    connection = await asyncpg.connect(database_url)
    deleted: Any = await connection.fetchrow("DELETE FROM insights WHERE conversation_id = 'good-77' RETURNING *")
    await connection.execute(
        "INSERT INTO insights (tenant, conversation_id, outcome, occurred_at, received_at, analysed_at, origin_topic,"
        " origin_partition, origin_offset) VALUES ('default', 'inserted', 'analysed', now(), now(), now(),"
        " 'conversations', 0, 0)"
    )
    await connection.close()
    code, document = service.report()
    assert (code, document["wrong"]) == (1, {"missing": 1, "orphaned": 1})
    missing, orphaned = document["findings"]
    place = (missing["topic"], missing["partition"], missing["offset"])
    assert (missing["id"], *place) == (
        "good-77",
        *(deleted[f"origin_{name}"] for name in ("topic", "partition", "offset")),
    )
    assert (orphaned["id"], orphaned["partition"], orphaned["offset"]) == ("inserted", 0, 0)

    plain = service.audit("--show", "1")
    assert plain.returncode == 1
    assert plain.stdout.splitlines()[-1] == "not reconciled: 1 missing, 1 orphaned"
    assert "default:good-77" in plain.stdout
    assert "inserted" not in plain.stdout
    assert "parcel" not in plain.stdout + plain.stderr


async def test_a_row_lost_to_a_record_that_failed_its_check_is_found(
    service: Audited, broker: Kafka | Tansu, database_url: str
) -> None:
    """Such a record's row never replaces that of a valid one, however much later it was received."""
    valid = b'{"id":"c1","text":"I was charged twice for it","occurred_at":"2026-01-01T00:00:00Z"}'
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for value in (b'{"id":"c1","text":5}', valid):
            await producer.send_and_wait(TOPICS.conversations, value, partition=0)
    service.start_worker("worker-1")
    assert service.report("--wait", "60", "--strict")[0] == 0

    connection = await asyncpg.connect(database_url)
    done = await connection.execute(
        "UPDATE insights SET outcome = 'dead', text_key = NULL, occurred_at = now(), origin_offset = 0"
    )
    await connection.close()
    assert done == "UPDATE 1"
    _, document = service.report()
    assert document["wrong"] == {"missing": 1}
    assert document["findings"][0]["offset"] == 1


@pytest.mark.slow
async def test_the_audit_is_right_at_any_time(service: Audited, broker: Kafka | Tansu) -> None:
    """While records arrive, while workers run, and after one was killed: what is not proven yet is pending."""
    workers = [service.start_worker(name) for name in ("worker-1", "worker-2")]
    for worker in workers:
        made = await produce_mixed(broker)
        code, document = service.report()
        assert (code, document["wrong"]) == (0, {}), document["findings"]
        worker.kill()
    service.start_worker("worker-3")
    code, document = service.report("--wait", "60", "--strict")
    assert (code, document["wrong"], document["total"]["records"]) == (0, {}, 800), document["findings"]
    assert document["ids"]["distinct"] == made["distinct"]


async def commit(broker: Kafka | Tansu, offset: int) -> None:
    options = {
        "bootstrap_servers": broker.bootstrap_servers,
        "group_id": TOPICS.consumer_group,
        "enable_auto_commit": False,
    }
    async with AIOKafkaConsumer(**options) as consumer:
        consumer.assign([FIRST])
        await consumer.commit({FIRST: offset})


async def remove_before(broker: Kafka | Tansu, partition: TopicPartition, offset: int) -> None:
    """Deletes records as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    await admin.delete_records({partition: RecordsToDelete(offset)})
    await admin.close()


@on_kafka
async def test_records_of_uncommitted_transactions_do_not_count(service: Audited, broker: Kafka) -> None:
    """Records of an aborted transaction do not count, even once the group is past them, nor those of an open one; `dlq`
    agrees."""
    dead = TopicPartition(TOPICS.dead_letters, 0)
    options = {"bootstrap_servers": broker.bootstrap_servers, "transactional_id": "producer"}
    async with AIOKafkaProducer(**options) as producer:
        await producer.begin_transaction()
        for tp in (FIRST, dead):
            await producer.send_and_wait(tp.topic, b"not json", partition=tp.partition)
        await producer.abort_transaction()
        await producer.begin_transaction()
        for tp in (FIRST, dead):
            await producer.send_and_wait(tp.topic, b"not json", partition=tp.partition)
        await commit(broker, 2)
        code, document = service.report("--strict")
        assert (code, document["wrong"], document["total"]["records"]) == (0, {}, 0)
        assert document["dead_letters"].get("read", 0) == 0
        service.run("dlq", "list")
        await producer.commit_transaction()
    _, document = service.report()
    assert (document["total"]["records"], document["total"]["pending"]) == (1, 1)
    assert document["dead_letters"]["read"] == 1


@on_kafka
async def test_records_that_retention_removed_unread_are_lost(service: Audited, broker: Kafka) -> None:
    """It is unverifiable while nothing is committed; committed offsets beyond the log are a finding too."""
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for number in range(10):
            await producer.send_and_wait(TOPICS.conversations, b"%d" % number, partition=0)
    await remove_before(broker, FIRST, 5)
    code, document = service.report()
    assert (code, document["wrong"], document["unverifiable"]) == (0, {}, 5)
    assert service.report("--strict")[0] == 1
    await commit(broker, 3)
    code, document = service.report()
    [finding] = document["findings"]
    assert (code, document["wrong"], document["total"]["records"]) == (1, {"lost": 2}, 5)
    assert (finding["what"], finding["topic"], finding["partition"], finding["offset"]) == (
        "lost",
        "conversations",
        0,
        3,
    )
    await commit(broker, 20)
    code, document = service.report()
    assert (code, document["wrong"]) == (1, {"ahead": 10})


@on_kafka
async def test_an_event_must_exist_where_older_ones_do(service: Audited, broker: Kafka, database_url: str) -> None:
    """Retention may have removed that of an older record only."""
    now_ms = time.time_ns() // 1_000_000
    connection = await asyncpg.connect(database_url)
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for offset, age_ms in enumerate((120_000, 10_000)):
            value, at_ms = b'{"id":"%d","text":"late parcel"}' % offset, now_ms - age_ms
            await producer.send_and_wait(TOPICS.conversations, value, partition=0, timestamp_ms=at_ms)
            await connection.execute(
                "INSERT INTO insights (tenant, conversation_id, outcome, occurred_at, received_at, analysed_at,"
                " origin_topic, origin_partition, origin_offset)"
                " VALUES ('default', $1, 'analysed', now(), now(), now(), 'conversations', 0, $2)",
                str(offset),
                offset,
            )
        event: list[tuple[str, bytes]] = [(Header.SOURCE, b"/conversations/0/0"), (Header.TENANT, b"default")]
        for age_ms in (100_000, 60_000):
            at_ms = now_ms - age_ms
            await producer.send_and_wait(
                TOPICS.insights, b"{}", key=b"0", partition=1, timestamp_ms=at_ms, headers=event
            )
    await connection.close()
    await commit(broker, 2)
    code, document = service.report()
    assert (code, document["wrong"], document["findings"][0]["id"]) == (1, {"incomplete": 1}, "1")
    await remove_before(broker, TopicPartition(TOPICS.insights, 1), 1)
    assert service.report()[1]["wrong"] == {"incomplete": 1}
    await remove_before(broker, TopicPartition(TOPICS.insights, 1), 2)
    code, document = service.report()
    assert (code, document["wrong"], document["unverifiable"]) == (0, {}, 2)


@on_kafka
async def test_retention_during_the_audit_causes_no_finding(service: Audited, broker: Kafka) -> None:
    """The topic counts as complete from where it begins once it is read."""
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for at_ms in (1_000, 2_000):
            await producer.send_and_wait(
                TOPICS.insights, b"{}", partition=1, timestamp_ms=time.time_ns() // 10**6 + at_ms
            )
    reader = TopicReader({"bootstrap_servers": broker.bootstrap_servers}, TOPICS, Reconciliation(TOPICS.inputs, 1))
    await reader.start()
    assert (await reader.retention())[1] == CompleteSince()
    await remove_before(broker, TopicPartition(TOPICS.insights, 1), 1)
    _, complete = await reader.retention()
    assert complete.dead_letters_us < 0
    assert complete.events_us > time.time_ns() // 1_000


async def test_a_missing_topic_is_named_and_not_created(service: Audited, broker: Kafka | Tansu) -> None:
    """A broker that is asked about it by name may create it with its own settings."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    await admin.delete_topics([TOPICS.insights])
    ended = service.audit("--wait", "1")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[:2] == ["error: topics are missing", "  why: insights"]
    assert TOPICS.insights not in await admin.list_topics()
    await admin.close()


async def test_a_broker_that_stops_answering_ends_the_audit(
    tansu: Tansu, producer: ConfirmedProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what, why and hint."""
    await producer.send(TOPICS.conversations, key=b"k", value=b"v", headers=[], partition=0)
    reader = TopicReader({"bootstrap_servers": tansu.bootstrap_servers}, TOPICS, Reconciliation(TOPICS.inputs, 1))
    await reader.start()
    reader._bounds = {FIRST: (0, 5)}
    monkeypatch.setattr(topic_scan, "STALLED_AFTER_S", 2.0)
    with pytest.raises(Fatal, match="stopped answering") as raised:
        [batch async for batch in reader.observations()]
    assert "the topic conversations" in raised.value.why
    assert raised.value.hint


def test_without_a_broker_or_a_database_there_is_no_report(database_url: str, tmp_path: Path) -> None:
    """There is an error of three lines, with exit code 1, or 2 for an invalid setting."""
    closed = f"127.0.0.1:{free_port()}"
    for bootstrap_servers, url, code, what in (
        (closed, database_url, 1, "the broker cannot be used"),
        (closed, f"postgresql://u:secret@{closed}/d", 1, "the database cannot be used"),
        (closed, "postgresql://u:secret@[/d", 2, "DATABASE_URL is not a valid PostgreSQL URL"),
    ):
        ended = Audited(tmp_path, bootstrap_servers, url).audit()
        assert (ended.returncode, ended.stdout) == (code, "")
        assert ended.stderr.splitlines()[0] == f"error: {what}"
        assert "secret" not in ended.stderr
