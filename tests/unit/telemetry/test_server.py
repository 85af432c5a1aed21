"""The worker's HTTP server, on real sockets."""

import socket

import aiohttp
import pytest

from schemas.errors import Fatal, Retryable
from streams.telemetry.health import Health, MetricsServer


async def fails() -> None:
    raise Retryable("Postgres does not answer")


async def test_any_free_port_serves_metrics_and_probes() -> None:
    """Port 0 becomes a real one; liveness is independent of what readiness asks."""
    server = MetricsServer("127.0.0.1", 0, Health({"database": fails}))
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            async with session.get("/metrics") as response:
                assert "grok_calls_total" in await response.text()
            async with session.get("/livez") as response:
                assert response.status == 200
            async with session.get("/readyz") as response:
                answer = await response.json()
                assert (response.status, answer["checks"]) == (503, {"database": "Postgres does not answer"})
    finally:
        await server.stop()


async def test_health_has_checks_that_readiness_leaves_out() -> None:
    """A failure that neither a restart nor another worker would fix does not make a worker unready."""

    async def passes() -> None:
        return

    health = Health({"database": passes, "provider_calls": fails})
    server = MetricsServer("127.0.0.1", 0, health, ready_checks=["database"])
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            async with session.get("/readyz") as response:
                assert (response.status, (await response.json())["checks"]) == (200, {"database": "ok"})
            async with session.get("/health") as response:
                checks = {"database": "ok", "provider_calls": "Postgres does not answer"}
                assert (response.status, await response.json()) == (200, {"status": "degraded", "checks": checks})
    finally:
        await server.stop()


async def test_a_port_in_use_names_the_setting() -> None:
    """The start fails with what to change, and leaves nothing running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = MetricsServer("127.0.0.1", taken.getsockname()[1], Health({}))
        with pytest.raises(Fatal) as caught:
            await server.start()
    assert "WORKER_METRICS_PORT" in caught.value.hint
    await server.stop()


async def test_an_address_of_another_host_is_explained() -> None:
    """Listening on it is Fatal as well, with a reason in words."""
    with pytest.raises(Fatal):
        await MetricsServer("192.0.2.1", 0, Health({})).start()
