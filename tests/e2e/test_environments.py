"""Two environments on one broker, separated by TOPIC_PREFIX alone, do not see each other."""

import asyncio
import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from schemas.kafka import Topics
from streams.dev.local.brokers import Tansu
from streams.kafka.scan import bounds
from tests.e2e.rows import count_rows
from tests.support.processes import Service

TEXTS = [f"Where is order {number}, it should be here by now" for number in range(8)]
BROKEN = b"not json"


@pytest.fixture
def used(broker: Tansu, database_url: str, tmp_path: Path, group_timeouts: dict[str, str]) -> Iterator[Service]:
    """The environment in which the test works."""
    yield from _environment(tmp_path / "used", broker, database_url, "used.", group_timeouts)


@pytest.fixture
def idle(broker: Tansu, other_database_url: str, tmp_path: Path, group_timeouts: dict[str, str]) -> Iterator[Service]:
    """The environment that must not notice; it has no prefix, as a first environment would."""
    yield from _environment(tmp_path / "idle", broker, other_database_url, "", group_timeouts)


def _environment(
    folder: Path, broker: Tansu, database_url: str, prefix: str, settings: dict[str, str]
) -> Iterator[Service]:
    folder.mkdir()
    with Service(folder, broker.bootstrap_servers, database_url, prefix=prefix, **settings) as service:
        service.run("topics")  # the command, which reads the prefix
        yield service


def post(service: Service, text: str) -> None:
    body = json.dumps({"text": text}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{service.gateway_url}/api/v1/conversations", body, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  loopback only
        assert response.status == 202


def start(service: Service) -> None:
    service.start_gateway()
    service.start_worker("worker-1")


def output_of(service: Service, *arguments: str) -> str:
    """Returns the output of a command that must end with 0."""
    service.run(*arguments)
    return (service.folder / f"{arguments[0]}.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_work_in_one_environment_leaves_the_other_untouched(
    used: Service, idle: Service, broker: Tansu, database_url: str, other_database_url: str
) -> None:
    """Through the gateway and from a foreign producer, to the rows, the events, the dead letter and their replay."""
    await asyncio.gather(*(asyncio.to_thread(start, service) for service in (used, idle)))
    await asyncio.to_thread(post, used, TEXTS[0])
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for number, text in enumerate(TEXTS):
            value = json.dumps({"id": f"c-{number}", "text": text}).encode()
            await producer.send_and_wait(used.topics.conversations, value, partition=0)
        await producer.send_and_wait(used.topics.conversations, BROKEN)
    rows = await asyncpg.connect(database_url)
    await count_rows(rows, len(TEXTS) + 1, timeout_s=60)
    await rows.close()

    assert '"balanced":true' in output_of(used, "audit", "--strict", "--wait", "30", "--json")
    assert "sent 1," in output_of(used, "dlq", "replay", "--all", "--yes")
    assert all((await record_counts(broker, used.topics)).values())

    assert not any((await record_counts(broker, idle.topics)).values())
    assert '"records":0' in output_of(idle, "audit", "--strict", "--json")
    assert "0  unresolved" in output_of(idle, "dlq", "list")
    rows = await asyncpg.connect(other_database_url)
    assert await rows.fetchval("SELECT count(*) FROM insights") == 0
    await rows.close()


async def record_counts(broker: Tansu, topics: Topics) -> Counter[str]:
    """How many records each topic of an environment holds."""
    names = (*topics.messages, topics.answers_changelog, topics.replay_ledger)
    counts = Counter(dict.fromkeys(names, 0))
    for at, (begin, end) in (await bounds({"bootstrap_servers": broker.bootstrap_servers}, topics, names)).items():
        counts[at.topic] += end - begin
    return counts
