"""A topic full of records that die, on real brokers: the worker halts after 100 dead letters and loses nothing."""

import asyncio
import json
import urllib.request
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from streams.dev.local.brokers import Kafka, Tansu
from streams.kafka.offset_reader import OffsetReader
from tests.e2e.producer import produce, texts_with_repeats
from tests.e2e.rows import count_rows
from tests.support.processes import PARTITIONS, Process, Service, get
from tests.support.topic_log import records_of
from tests.support.waiting import eventually, wait_until

on_kafka = pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
LIMIT = 100


async def produce_undecodable(service: Service, count: int) -> None:
    """Produces records that cannot be decoded, spread over the partitions."""
    async with AIOKafkaProducer(bootstrap_servers=service.bootstrap_servers, acks="all", linger_ms=20) as producer:
        keys = (b"broken-%d" % number for number in range(count))
        sent = [await producer.send(service.topics.conversations, b"not json \xff", key=key) for key in keys]
        for confirmation in sent:
            await confirmation


def why_halted(worker: Process) -> str | None:
    """Returns what /readyz reports about the dead letters, once that is not "ok"."""
    status, body = get(f"{worker.url}/readyz")
    state = str(json.loads(body)["checks"]["dead_letters"]) if body else "ok"
    return f"{status} {state}" if state != "ok" else None


def seen_by_the_gateway(service: Service) -> str | None:
    """Returns what /health reports about the workers, once that is not "ok"."""
    health = json.loads(get(f"{service.gateway_url}/health")[1])
    state = str(health["checks"].get("worker", "ok"))
    return state if health["status"] == "degraded" and state != "ok" else None


async def halted(worker: Process) -> str:
    return str(await asyncio.to_thread(wait_until, lambda: why_halted(worker), timeout_s=60, what="the worker halts"))


async def committed_in(service: Service) -> dict[int, int]:
    reader = OffsetReader({"bootstrap_servers": service.bootstrap_servers}, service.topics)
    await reader.start()
    try:
        asked = [TopicPartition(service.topics.conversations, number) for number in range(PARTITIONS)]
        return {at.partition: offset or 0 for at, offset in (await reader.committed_offsets(asked)).items()}
    finally:
        await reader.stop()


def stop_within_10_s(worker: Process) -> int:
    worker.process.terminate()
    return worker.process.wait(10)


@pytest.mark.slow
async def test_a_hundred_dead_letters_and_no_more(
    service: Service, rows: asyncpg.Connection, broker: Tansu | Kafka
) -> None:
    """3,000 records cannot be decoded. The process stays up, is not ready, says why, and leaves the rest alone."""
    service.start_gateway()
    worker = service.start_worker("worker-1")
    await produce(service, texts_with_repeats(500, 0.3, seed=1))
    await count_rows(rows, 500, timeout_s=60)
    await produce_undecodable(service, 3_000)
    reason = await halted(worker)
    assert reason.startswith("503 too many records became dead letters: 100 in a row")
    assert "undecodable, 100 times" in reason
    await produce(service, ["where is my parcel, it is late"] * 20, first=500)
    if isinstance(broker, Kafka):  # Tansu keeps no note with an offset
        state = await asyncio.to_thread(wait_until, lambda: seen_by_the_gateway(service), what="/health says so")
        assert state == "1 of 1 workers have halted: too many dead letters; see grok-insights dlq list"
    url: str = worker.url
    assert get(f"{url}/livez")[0] == 200
    assert b"dead_letters_stopped 1.0" in get(f"{url}/metrics")[1]

    assert await asyncio.to_thread(stop_within_10_s, worker) == 1
    [failure] = [event for event in worker.events() if event["level"] == "error"]
    assert (failure["event"], failure["error"]) == ("worker_halted", "too many records became dead letters")
    dead_letters = await records_of(service.bootstrap_servers, service.topics.dead_letters)
    assert len(dead_letters) == LIMIT
    assert await rows.fetchval("SELECT count(*) FROM insights") == 500
    assert await committed_in(service) == await first_unfinished(service, dead_letters)


async def first_unfinished(service: Service, dead_letters: list[Any]) -> dict[int, int]:
    """Returns by partition the first undecodable record without a dead letter: here records die in order."""
    dead = {(int(dict(at.headers)["dlq.partition"]), int(dict(at.headers)["dlq.offset"])) for at in dead_letters}
    unfinished: dict[int, int] = {}
    for record in await records_of(service.bootstrap_servers, service.topics.conversations):
        if record.value.startswith(b"not json") and (record.partition, record.offset) not in dead:
            unfinished.setdefault(record.partition, record.offset)
    return unfinished


async def test_bad_records_are_accepted_in_one_restart(service: Service, rows: asyncpg.Connection) -> None:
    """There are 1,500: the halted worker is restarted with their number, and the records behind them are analysed."""
    service.settings["DEAD_LETTER_LIMIT"] = "20"
    worker = service.start_worker("worker-1")
    await produce_undecodable(service, 1_500)
    assert "20 in a row" in await halted(worker)
    assert await asyncio.to_thread(stop_within_10_s, worker) == 1
    assert "--accept-dead-letters N" in worker.log.read_text()
    await produce(service, ["where is my parcel, it is late"] * 20)
    again = service.start_worker("worker-2", "--accept-dead-letters", "1500")
    await count_rows(rows, 20, timeout_s=60)
    assert why_halted(again) is None
    assert len(await records_of(service.bootstrap_servers, service.topics.dead_letters)) == 1_500
    await produce_undecodable(service, 50)
    assert "20 in a row" in await halted(again)


@on_kafka
async def test_with_the_cause_fixed_the_rest_ends_well(service: Service, rows: asyncpg.Connection) -> None:
    """Every answer fails its check, up to 100 dead letters. Then the provider is fixed and the worker restarted."""
    service.start_standin("--fault", "bad_schema=1", "--latency-min-s", "0", "--latency-max-s", "0.2")
    worker = service.start_worker("worker-1")
    await produce(service, texts_with_repeats(1_000, 0, seed=2))
    assert "bad_answer, 100 times" in await halted(worker)
    put_right(service)
    # Texts in flight are asked about again and may live now; no waiting record is taken.
    assert await asyncio.to_thread(stop_within_10_s, worker) == 1
    assert len(await records_of(service.bootstrap_servers, service.topics.dead_letters)) == LIMIT

    again = await asyncio.to_thread(service.start_worker, "worker-1")
    await count_rows(rows, 1_000, timeout_s=60)
    await all_finished(service)
    outcomes = dict(await rows.fetch("SELECT outcome, count(*) FROM insights GROUP BY outcome"))
    print(f"rows: {outcomes}")
    # Cached is what was answered just before the stop and is read again after it.
    assert sum(outcomes.values()) == 1_000
    assert set(outcomes) <= {"analysed", "cached", "dead"}
    assert outcomes.get("dead", 0) <= LIMIT
    dead_letters = await records_of(service.bootstrap_servers, service.topics.dead_letters)
    assert len(dead_letters) == LIMIT
    dead = {row["conversation_id"] for row in await rows.fetch("SELECT * FROM insights WHERE outcome = 'dead'")}
    assert dead <= {dead_letter.key.decode() for dead_letter in dead_letters}
    assert again.stop() == 0


def put_right(service: Service) -> None:
    address = f"http://127.0.0.1:{service.standin_port}/control/faults"
    with urllib.request.urlopen(urllib.request.Request(address, b"{}", method="PUT"), timeout=5) as response:
        assert response.status == 200


async def all_finished(service: Service) -> None:
    """Returns when the committed offsets have reached the end of the topic."""
    ends: dict[int, int] = {}
    for record in await records_of(service.bootstrap_servers, service.topics.conversations):
        ends[record.partition] = record.offset + 1

    async def are_committed() -> bool:
        return await committed_in(service) == ends

    await eventually(are_committed, what="the committed offsets are the ends")
