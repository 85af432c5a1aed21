"""`kafka-topics --alter` on a running service: workers say what to do, and continue by themselves once it is done."""

import asyncio
import json
from collections.abc import Sequence

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from tests.e2e.producer import produce
from tests.e2e.rows import count_rows
from tests.support.processes import PARTITIONS, Process, Service, get
from tests.support.waiting import wait_until

on_kafka = pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)

TEXTS = [f"where is my parcel number {number}, it is late" for number in range(40)]


async def alter(service: Service, partitions: int) -> None:
    """Changes `conversations` alone, as `kafka-topics --alter` does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=service.bootstrap_servers)
    await admin.start()
    await admin.create_partitions({service.topics.conversations: NewPartitions(partitions)})
    await admin.close()


async def produce_to(service: Service, partition: int, texts: Sequence[str]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=service.bootstrap_servers, acks="all") as producer:
        for number, text in enumerate(texts):
            value = json.dumps({"id": f"new-{number}", "text": text}).encode()
            await producer.send_and_wait(service.topics.conversations, value, partition=partition)


def unready(worker: Process) -> str | None:
    """Returns what /readyz reports about the partitions, once that is not "ok"."""
    body = get(f"{worker.url}/readyz")[1]
    state = str(json.loads(body)["checks"]["partitions"]) if body else "ok"
    return state if state != "ok" else None


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
def test_a_broker_that_cannot_add_partitions_is_named(service: Service) -> None:
    """Tansu does not know the request; no right would help."""
    grow = service.start("grow", "topics", "--grow", TOPIC_PARTITIONS=str(2 * PARTITIONS))
    assert grow.process.wait(60) == 1
    assert "  why: this broker cannot add partitions\n hint: create the topics with " in grow.log.read_text()


@on_kafka
async def test_workers_name_the_command_and_continue_after_it(service: Service, rows: asyncpg.Connection) -> None:
    """They do so within a minute. Each text is asked for at most once more, since it may have another owner."""
    service.start_standin("--latency-min-s", "0", "--latency-max-s", "0")
    await asyncio.to_thread(service.start_gateway)
    workers = [await asyncio.to_thread(service.start_worker, name) for name in ("worker-1", "worker-2")]
    await produce(service, TEXTS)
    await count_rows(rows, len(TEXTS), timeout_s=60)
    await alter(service, 2 * PARTITIONS)
    await produce_to(service, 2 * PARTITIONS - 1, TEXTS)
    for worker in workers:
        state = await asyncio.to_thread(wait_until, lambda: unready(worker), timeout_s=60, what="the worker says so")  # noqa: B023
        assert f"{service.topics.conversations} has {2 * PARTITIONS}" in state
        assert state.endswith("give all of them the largest number: grok-insights topics --grow")
        assert "topics_unusable" in worker.log.read_text()
    health = json.loads((await asyncio.to_thread(get, f"{service.gateway_url}/health"))[1])
    assert (health["status"], health["checks"]["worker"].endswith("grok-insights topics --grow")) == ("degraded", True)

    await asyncio.to_thread(service.run, "topics", "--grow")
    await count_rows(rows, 2 * len(TEXTS), timeout_s=90)
    for worker in workers:
        await asyncio.to_thread(
            wait_until,
            lambda: get(f"{worker.url}/readyz")[0] == 200,  # noqa: B023
            timeout_s=60,
            what="the worker is ready",
        )
    assert service.standin("control/stats")["calls"] <= 2 * len(TEXTS)
    await produce(service, TEXTS, first=100)
    await count_rows(rows, 3 * len(TEXTS), timeout_s=60)
    assert await rows.fetchval("SELECT count(*) FROM insights WHERE outcome = 'cached'") >= len(TEXTS)
    assert [worker.stop() for worker in workers] == [0, 0]
