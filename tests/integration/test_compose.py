"""docker-compose.kafka.yml as a user starts it: the image is built, all is healthy, an insight comes out."""

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import aiohttp
import pytest

from streams.dev.local.ports import LOOPBACK, free_port
from tests.support.container_engine import (
    KAFKA_IMAGE,
    POSTGRES_IMAGE,
    PROMETHEUS_IMAGE,
    PYTHON_IMAGE,
    docker,
    require_images,
)

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

BUILD_TIMEOUT_S = 600
UP_TIMEOUT_S = 180
DEADLINE_S = 60
WORKERS = 2
T = TypeVar("T")
TEXT = "The app crashes whenever I open my invoice, and support has not answered for a week. I want a refund."


class Stack:
    """One project of the compose file, with ports, names and settings of its own."""

    def __init__(self) -> None:
        name = f"grok-insights-test-{secrets.token_hex(4)}"
        self.image = f"{name}:test"
        self.gateway_port, self.prometheus_port, self.kafka_port = free_port(), free_port(), free_port()
        # Nothing of the developer's: neither settings nor, by --env-file, a .env beside the compose file.
        self._environment = {key: os.environ[key] for key in ("PATH", "HOME", "DOCKER_HOST") if key in os.environ} | {
            "GROK_INSIGHTS_IMAGE": self.image,
            "KAFKA_IMAGE": KAFKA_IMAGE,
            "POSTGRES_IMAGE": POSTGRES_IMAGE,
            "PROMETHEUS_IMAGE": PROMETHEUS_IMAGE,
            "GATEWAY_PORT": str(self.gateway_port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
            "KAFKA_PORT": str(self.kafka_port),
            "ANALYSER": "local",
            "XAI_API_KEY": "",
        }
        self._options = ("-p", name, "-f", "docker-compose.kafka.yml", "--env-file", os.devnull)

    def compose(self, *arguments: str, check: bool = True, timeout_s: float = 60) -> str:
        """Standard output of one command of `docker compose`."""
        done = docker(
            "compose", *self._options, *arguments, check=check, timeout_s=timeout_s, environment=self._environment
        )
        return done.stdout

    def up(self) -> None:
        """Returns when everything is healthy. Raises AssertionError with the end of the logs otherwise."""
        wait = ("--wait", "--wait-timeout", str(UP_TIMEOUT_S))
        try:
            self.compose("up", *wait, "--scale", f"worker={WORKERS}", timeout_s=UP_TIMEOUT_S + 60)
        except AssertionError as error:
            error.add_note(self.compose("logs", "--tail", "20", check=False)[-8000:])
            raise

    def containers(self) -> list[dict[str, Any]]:
        """Returns what `docker inspect` reports for every container, including ended ones."""
        described = docker("inspect", *self.compose("ps", "-aq").split()).stdout
        containers: list[dict[str, Any]] = json.loads(described)
        return containers

    def of(self, service: str) -> list[dict[str, Any]]:
        label = "com.docker.compose.service"
        return [container for container in self.containers() if container["Config"]["Labels"][label] == service]

    def run_in(self, service: str, script: str) -> str:
        return self.compose("exec", "-T", service, "sh", "-c", script).strip()

    def remove(self) -> None:
        """Containers, volumes, network and image of this project, and nothing else."""
        self.compose("down", "-v", "--remove-orphans", "--timeout", "10", check=False, timeout_s=120)
        docker("image", "rm", "--force", self.image, check=False)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    require_images(PYTHON_IMAGE, KAFKA_IMAGE, POSTGRES_IMAGE, PROMETHEUS_IMAGE)
    stack = Stack()
    try:
        stack.compose("build", timeout_s=BUILD_TIMEOUT_S)
        stack.up()
        yield stack
    finally:
        stack.remove()


def test_everything_is_healthy_and_preparations_ended(stack: Stack) -> None:
    """`up --wait` means it: services with a health check pass it, the one-shot services ended with exit code 0."""
    for service, count in {"kafka": 1, "postgres": 1, "gateway": 1, "worker": WORKERS}.items():
        assert [container["State"]["Health"]["Status"] for container in stack.of(service)] == ["healthy"] * count
    for service in ("migrate", "topics"):
        assert [container["State"]["ExitCode"] for container in stack.of(service)] == [0]


async def test_a_posted_conversation_gets_an_insight_and_a_row(stack: Stack) -> None:
    """The whole way: gateway, Kafka, worker, Postgres and back."""
    found = await _insight_of(stack, "c-1", TEXT)

    assert (found["outcome"], found["insight"]["action_needed"]) == ("analysed", True)
    query = "SELECT outcome FROM insights WHERE conversation_id = 'c-1'"
    assert stack.run_in("postgres", f'psql -U grok -d grok_insights -tAc "{query}"') == "analysed"


async def test_health_is_ok(stack: Stack) -> None:
    """The gateway sees broker, database and workers, and no lag."""

    async def ok() -> dict[str, Any] | None:
        health: dict[str, Any] = json.loads(await _get_text(f"http://{LOOPBACK}:{stack.gateway_port}/health"))
        return health if health["status"] == "ok" else None

    assert (await _until(ok))["worker_running"]


async def test_prometheus_scrapes_gateway_and_every_worker(stack: Stack) -> None:
    """Scaled workers are found by name, and both kinds of process export their metrics."""
    assert "# TYPE requests_total counter" in await _get_text(f"http://{LOOPBACK}:{stack.gateway_port}/metrics")

    async def jobs() -> list[str] | None:
        up = sorted(series["job"] for series in await _query(stack, "up == 1"))
        return up if len(up) == 1 + WORKERS else None

    assert await _until(jobs) == ["gateway", *["worker"] * WORKERS]
    assert len(await _query(stack, 'conversations_lag_seconds{job="worker"}')) == WORKERS


async def test_prometheus_loads_the_rules(stack: Stack) -> None:
    """The rules of infra/prometheus/rules are evaluated, and a stack at rest raises none of them."""
    answer = json.loads(await _get_text(f"http://{LOOPBACK}:{stack.prometheus_port}/api/v1/rules"))
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]

    assert "LagHigh" in {rule["name"] for rule in rules}
    assert {rule["state"] for rule in rules} <= {"inactive", "pending"}


@pytest.mark.parametrize("service", ["gateway", "worker"])
def test_a_break_in_finds_little(stack: Stack, service: str) -> None:
    """No root, no capability, no way to gain one, nothing to write to but the data, no package tool."""
    status = dict(line.split(":\t", 1) for line in stack.run_in(service, "cat /proc/1/status").splitlines())

    assert status["Uid"].split() == ["10001"] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    assert "refused" in stack.run_in(service, "touch /app/x /opt/venv/x 2>/dev/null || echo refused")
    assert "none" in stack.run_in(service, "python3 -m pip 2>/dev/null || which pip gcc cc || echo none")


def test_every_published_port_is_on_loopback(stack: Stack) -> None:
    """The gateway accepts anonymous clients, so none from another machine may reach it."""
    bindings = [container["HostConfig"]["PortBindings"] or {} for container in stack.containers()]
    addresses = {binding["HostIp"] for ports in bindings for bound in ports.values() for binding in bound}

    assert addresses == {LOOPBACK}


async def test_services_end_in_order_and_come_back_with_their_data(stack: Stack) -> None:
    """SIGTERM suffices (exit code 0, within the grace period), and a restarted stack has its earlier data."""
    await _insight_of(stack, "before", TEXT)
    stack.compose("stop", timeout_s=120)
    ended = {service: [c["State"]["ExitCode"] for c in stack.of(service)] for service in ("gateway", "worker")}
    assert ended == {"gateway": [0], "worker": [0] * WORKERS}

    stack.up()

    assert (await _insight_of(stack, "after", TEXT))["outcome"] == "cached"


async def _insight_of(stack: Stack, conversation_id: str, text: str) -> dict[str, Any]:
    async with aiohttp.ClientSession(f"http://{LOOPBACK}:{stack.gateway_port}") as session:
        document = {"id": conversation_id, "text": text}
        async with session.post("/api/v1/conversations", json=document) as response:
            assert response.status == 202, await response.text()

        async def outcome() -> dict[str, Any] | None:
            async with session.get(f"/api/v1/conversations/{conversation_id}") as response:
                found: dict[str, Any] = await response.json()
                return found if response.status == 200 else None

        return await _until(outcome)


async def _query(stack: Stack, expression: str) -> list[dict[str, str]]:
    """The labels of every series that Prometheus finds."""
    address = f"http://{LOOPBACK}:{stack.prometheus_port}/api/v1/query"
    async with aiohttp.ClientSession() as session, session.get(address, params={"query": expression}) as response:
        return [series["metric"] for series in (await response.json())["data"]["result"]]


async def _get_text(address: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        assert response.status == 200
        return await response.text()


async def _until(look: Callable[[], Awaitable[T | None]]) -> T:
    """The first value that `look` finds. Raises TimeoutError after DEADLINE_S seconds."""
    async with asyncio.timeout(DEADLINE_S):
        while (found := await look()) is None:
            await asyncio.sleep(0.2)
        return found
