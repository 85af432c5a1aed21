"""No program lets a broker create topics: it would give them its own number of partitions and its own retention."""

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.process import ProcessLog
from streams.kafka.admin import topic_configs
from tests.support.processes import Process, Service, get
from tests.support.servers import running, skip_unless_kafka
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

#: Asks about a topic as aiokafka does by itself.
PLAIN_CLIENT = """
import asyncio, sys
from aiokafka.admin import AIOKafkaAdminClient

async def ask() -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=sys.argv[1])
    await admin.start()
    await admin.describe_topics(["asked-about"])
    await admin.close()

asyncio.run(ask())
"""


class CreatingKafka(Kafka):
    """With Kafka's own default, which most clusters have."""

    def __init__(self, data_dir: Path, log: ProcessLog) -> None:
        super().__init__(data_dir, log)
        self.properties["auto.create.topics.enable"] = "true"


@pytest.fixture(params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tansu | Kafka]:
    """One that creates the topics that a client asks about. Tansu always does."""
    if request.param == "kafka":
        skip_unless_kafka()
    with running(CreatingKafka if request.param == "kafka" else Tansu, tmp_path) as server:
        yield server


@pytest.fixture
def group_timeouts() -> dict[str, str]:
    """The defaults: no worker joins."""
    return {}


def topics_of(service: Service) -> set[str]:
    async def ask() -> set[str]:
        admin = AIOKafkaAdminClient(bootstrap_servers=service.bootstrap_servers)
        await admin.start()
        try:
            return set(await admin.list_topics()) - {"__consumer_offsets"}
        finally:
            await admin.close()

    return asyncio.run(ask())


def ended(process: Process) -> tuple[int, str]:
    """Its exit code, and its log."""
    return process.process.wait(60), process.log.read_text()


def post(url: str) -> int:
    body = json.dumps({"id": "1", "text": "I was charged twice"}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310  loopback only
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_missing_topics_are_named_and_not_created(bare_service: Service) -> None:
    """By workers, gateway and commands, on a broker that creates what other clients ask about."""
    service = bare_service
    wanted = set(topic_configs(service.topics))
    subprocess.run([sys.executable, "-c", PLAIN_CLIENT, service.bootstrap_servers], check=True, timeout=60)
    assert topics_of(service) == {"asked-about"}, "the broker creates nothing; without this the test shows nothing"

    gateway_port = service.free_port()
    gateway = f"http://127.0.0.1:{gateway_port}"
    service.start("gateway", "gateway", GATEWAY_PORT=str(gateway_port))
    missing = f"{service.topics.conversations} is missing".encode()
    wait_until(lambda: missing in get(f"{gateway}/readyz")[1], timeout_s=20, what="the gateway names its topic")
    assert get(f"{gateway}/readyz")[0] == 503
    assert post(f"{gateway}/api/v1/conversations") == 503

    code, log = ended(service.start("worker", "worker", ANALYSER="local"))
    assert (code, "topics are missing" in log) == (1, True)
    code, log = ended(service.start("check", "check", "--json", ANALYSER="local"))
    [finding] = [each for each in json.loads(log)["checks"] if each["name"] == "topics"]
    assert (code, finding["ok"], set(finding["detail"].split(": ")[1].split("; ")[0].split(", "))) == (1, False, wanted)
    for command in (["audit"], ["dlq", "list"]):
        code, log = ended(service.start(command[0], *command))
        assert (code, "topics are missing" in log) == (1, True), command

    assert topics_of(service) == {"asked-about"}
    service.create_topics()
    assert topics_of(service) == {"asked-about", *wanted}
    wait_until(lambda: get(f"{gateway}/readyz")[0] == 200, timeout_s=30, what="the gateway is ready")
    assert post(f"{gateway}/api/v1/conversations") == 202
