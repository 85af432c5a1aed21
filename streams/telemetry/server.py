"""The small HTTP server of a worker: metrics and probes, nothing else; its handlers serve the gateway too."""

import errno
import os
from collections.abc import Sequence

from aiohttp import web

from schemas.errors import Fatal
from streams.telemetry.health import OK, Health, Report
from streams.telemetry.metrics import exposition

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: aiohttp would name itself, Python and both versions; whoever asks needs none of that.
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Server": "grok-insights"}


def probe_routes(health: Health, ready_checks: Sequence[str] | None = None) -> list[web.RouteDef]:
    """/livez, /readyz and /metrics. Ready means that `ready_checks` pass; None stands for all checks."""

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": OK}, headers=HEADERS)

    async def readyz(_: web.Request) -> web.Response:
        return _ready_response(await health.report(ready_checks))

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={**HEADERS, "Content-Type": METRICS_CONTENT_TYPE})

    return [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]


def _ready_response(report: Report) -> web.Response:
    body = {"status": OK if report.is_ok else "unavailable", "failing": report.failing, "checks": dict(report.checks)}
    return web.json_response(body, status=200 if report.is_ok else 503, headers=HEADERS)


async def listen(runner: web.AppRunner, host: str, port: int, setting: str) -> int:
    """Serve a set-up runner on host:port (0 takes any free one) and return the port.

    Raises Fatal naming `setting`, the one to change, when nobody can listen there.
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
    """A worker's /metrics, /livez and /readyz. `port` 0 takes any free one; after start() it is the real one."""

    def __init__(self, host: str, port: int, health: Health) -> None:
        self.host = host
        self.port = port
        application = web.Application()
        application.add_routes(probe_routes(health))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Raises Fatal naming WORKER_METRICS_PORT when the port is taken; nothing is left running then."""
        await self._runner.setup()
        try:
            self.port = await listen(self._runner, self.host, self.port, "WORKER_METRICS_PORT")
        except Fatal:
            await self._runner.cleanup()
            raise

    async def stop(self) -> None:
        """Give requests under way a second, then close. Safe to call again and before start()."""
        await self._runner.cleanup()
