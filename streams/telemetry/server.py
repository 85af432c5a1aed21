"""Serves metrics and probes over HTTP.

The worker runs MetricsServer; the gateway reuses the routes.
"""

import errno
import os
from collections.abc import Sequence

from aiohttp import web

from schemas.errors import Fatal
from streams.telemetry.health import OK, Health, HealthReport
from streams.telemetry.metrics import exposition

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: aiohttp's default Server header discloses its version and Python's.
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Server": "grok-insights"}


def probe_routes(health: Health, ready_checks: Sequence[str] | None = None) -> list[web.RouteDef]:
    """Returns the routes /livez, /readyz and /metrics.

    Readiness requires `ready_checks`, or all checks if None.
    """

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": OK}, headers=HEADERS)

    async def readyz(_: web.Request) -> web.Response:
        return _ready_response(await health.report(ready_checks))

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={**HEADERS, "Content-Type": METRICS_CONTENT_TYPE})

    return [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]


def _ready_response(report: HealthReport) -> web.Response:
    body = {"status": OK if report.is_ok else "unavailable", "failing": report.failing, "checks": dict(report.checks)}
    return web.json_response(body, status=200 if report.is_ok else 503, headers=HEADERS)


async def listen(runner: web.AppRunner, host: str, port: int, setting: str) -> int:
    """Listens on host:port and returns the port; port 0 takes any free one.

    Raises Fatal when that is not possible; the hint names `setting`, the setting of the port.
    """
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        hint = f"choose another port with {setting}"
        if error.errno == errno.EADDRINUSE:
            why = f"another process listens on {host}:{port}"
            raise Fatal(f"port {port} is in use", why, f"stop that process or {hint}") from error
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else "the address is unknown"
        raise Fatal(f"cannot listen on {host}:{port}", why, hint) from error
    actual: int = runner.addresses[0][1]
    return actual


class MetricsServer:
    """Serves a worker's /metrics, /livez and /readyz.

    With port 0, `port` is the actual one after `start`.
    """

    def __init__(self, host: str, port: int, health: Health) -> None:
        self.host = host
        self.port = port
        application = web.Application()
        application.add_routes(probe_routes(health))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Raises Fatal that names WORKER_METRICS_PORT when the port is in use."""
        await self._runner.setup()
        try:
            self.port = await listen(self._runner, self.host, self.port, "WORKER_METRICS_PORT")
        except Fatal:
            await self._runner.cleanup()
            raise

    async def stop(self) -> None:
        """Gives open requests one second, then closes. Safe to call twice and before `start`."""
        await self._runner.cleanup()
