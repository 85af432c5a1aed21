"""What applies to every route: limits, unknown paths, metrics, probes."""

from aiohttp.test_utils import TestClient, TestServer

from streams.gateway.app import build_application
from streams.gateway.publisher import BrokerUnavailable
from streams.kafka.lag import Lag
from streams.telemetry.metrics import REGISTRY
from tests.fakes.gateway import FakeDependencies


async def test_more_than_the_limit_is_429_with_a_true_retry_after() -> None:
    """A client that waits that long succeeds at the first retry; probes are never refused."""
    fakes = FakeDependencies(rate_limit_per_minute=2)
    async with TestClient(TestServer(build_application(fakes.dependencies))) as client:
        statuses = [(await client.get("/api/v1/insights")).status for _ in range(2)]
        refused = await client.get("/api/v1/insights")
        assert (statuses, refused.status) == ([200, 200], 429)
        assert (await refused.json(content_type="application/problem+json"))["code"] == "rate_limited"
        assert (await client.get("/livez")).status == 200
        fakes.clock.now_s += int(refused.headers["Retry-After"])
        assert (await client.get("/api/v1/insights")).status == 200


async def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    """404 and 405 have the same form as all errors; 405 says what is allowed."""
    async with client.get("/nowhere") as response:
        answer = await response.json(content_type="application/problem+json")
        assert (response.status, answer["code"]) == (404, "not_found")
    async with client.delete("/api/v1/conversations") as response:
        answer = await response.json(content_type="application/problem+json")
        assert (response.status, answer["code"], response.headers["Allow"]) == (405, "method_not_allowed", "POST")


async def test_metrics_know_routes_not_paths(client: TestClient) -> None:
    """A scanner's paths add no series."""

    def seen(route: str, status: str) -> float:
        return REGISTRY.get_sample_value("requests_total", {"route": route, "status": status}) or 0.0

    before = seen("unmatched", "404"), seen("/api/v1/conversations/{id}", "404")
    for path in ("/a", "/b", "/c/d", "/api/v1/conversations/x"):
        await client.get(path)
    after = seen("unmatched", "404"), seen("/api/v1/conversations/{id}", "404")
    assert (after[0] - before[0], after[1] - before[1]) == (3, 1)
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "/c/d" not in await response.text()


async def test_healthy_is_ok(client: TestClient) -> None:
    """Lag comes with its two figures, and every check by name."""
    async with client.get("/health") as response:
        assert await response.json() == {
            "status": "ok",
            "lag_records": 7,
            "lag_seconds": 1.5,
            "worker_running": True,
            "checks": {"broker": "ok", "database": "ok", "lag": "ok", "worker": "ok"},
        }


async def test_health_names_what_fails(client: TestClient, fakes: FakeDependencies) -> None:
    """A failing check, a group without workers, a worker that has halted and an old record each degrade, by name."""
    fakes.publisher.failure = BrokerUnavailable("the broker does not answer")
    assert await _failing(client) == {"broker"}
    fakes.publisher.failure = None
    fakes.lag.lag = Lag({0: 1}, seconds=31, members=0)
    assert await _failing(client) == {"lag", "worker"}
    fakes.lag.lag = Lag({0: 1}, seconds=1, members=2, halted=1)
    assert await _failing(client) == {"worker"}
    fakes.lag.lag = Lag({0: 1}, seconds=1, members=2, equal_partitions=False)
    assert await _failing(client) == {"worker"}
    fakes.lag.lag = OSError("host 10.0.0.1 refused")
    assert await _failing(client) == {"lag"}


async def _failing(client: TestClient) -> set[str]:
    async with client.get("/health") as response:
        answer = await response.json()
    assert (response.status, answer["status"]) == (200, "degraded")
    return {name for name, state in answer["checks"].items() if state != "ok"}


async def test_readiness_asks_dependencies_and_liveness_does_not(client: TestClient, fakes: FakeDependencies) -> None:
    """A dead broker makes the gateway unready, not dead; an unknown lag does neither."""
    fakes.lag.lag = OSError()
    assert (await client.get("/readyz")).status == 200
    fakes.publisher.failure = BrokerUnavailable("the broker does not answer")
    async with client.get("/readyz") as response:
        assert (response.status, (await response.json())["failing"]) == (503, ["broker"])
    assert (await client.get("/livez")).status == 200
