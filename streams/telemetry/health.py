"""Health checks of dependencies, cached for a moment, and the HTTP probes and metrics of a process.

Readiness uses the checks, liveness must not: restarting a process does not repair its dependencies.
"""

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

import structlog
from aiohttp import web

from schemas.errors import Fatal, InsightsError
from streams.telemetry.log import LogThrottle
from streams.telemetry.metrics import exposition

OK = "ok"
#: A change must show within 3 s: a cached result is served for FRESH_S, and the next check may take CHECK_TIMEOUT_S.
CHECK_TIMEOUT_S = 1.5
#: However many clients probe, each dependency gets at most two checks a second.
FRESH_S = 0.5

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: aiohttp's default Server header discloses its version and Python's.
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Server": "grok-insights"}

Check = Callable[[], Awaitable[None]]
log = structlog.get_logger()


class Health:
    """Runs checks, which pass by returning and fail by raising. Reports the message of our own errors only."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        timeout_s: float = CHECK_TIMEOUT_S,
        fresh_s: float = FRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = {name: _CachedCheck(name, check, timeout_s, fresh_s, clock) for name, check in checks.items()}

    async def report(self, names: Collection[str] | None = None) -> dict[str, str]:
        """Returns "ok" or a short reason without secrets for each named check, or for all, within `timeout_s` seconds.

        Results are at most `fresh_s` seconds old. Never raises for a failed check, and waits for the named ones only.
        """
        wanted = self._checks if names is None else {name: self._checks[name] for name in names}
        states = await asyncio.gather(*(check.state() for check in wanted.values()))
        return dict(zip(wanted, states, strict=True))


class _CachedCheck:
    """One check and its last result. Callers that come while it runs wait for the same result."""

    def __init__(self, name: str, check: Check, timeout_s: float, fresh_s: float, clock: Callable[[], float]) -> None:
        self._name = name
        self._check = check
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._clock = clock
        self._state = ""
        self._throttle = LogThrottle()
        self._is_logged = False  # whether the log has the failure
        self._checked_at_s: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[str]] = set()

    async def state(self) -> str:
        if self._checked_at_s is None or self._clock() - self._checked_at_s >= self._fresh_s:
            if self._refreshing is None:
                self._refreshing = asyncio.create_task(self._refresh(), name=f"health-{self._name}")
            await asyncio.shield(self._refreshing)
        return self._state

    async def _refresh(self) -> None:
        """Cancels a check that timed out without waiting for it: its cancellation may hang as well."""
        running = asyncio.create_task(_run(self._check))
        try:
            await asyncio.wait({running}, timeout=self._timeout_s)
            if not running.done():
                running.cancel()
                self._abandoned.add(running)
                running.add_done_callback(self._abandoned.discard)
                state = f"no answer within {self._timeout_s:g} s"
            else:
                state = "the check was cancelled" if running.cancelled() else running.result()
            now_s = self._clock()
            if state == OK:
                self._throttle.reset()
            is_due = state != OK and self._throttle.is_due(state, now_s)
            has_changed = state != self._state
            # The start logs by itself what it waits for, and when that is over.
            is_after_start = self._is_logged if state == OK else self._state != ""
            if is_after_start and (has_changed or is_due):
                log.info("health_changed" if has_changed else "health_unchanged", check=self._name, state=state)
                self._is_logged = state != OK
            self._state, self._checked_at_s = state, now_s
        finally:
            self._refreshing = None


async def _run(check: Check) -> str:
    try:
        await check()
    except InsightsError as error:
        return str(error)
    except Exception as error:  # a check must not break the probe; messages of other libraries may hold secrets
        return type(error).__name__
    return OK


def probe_routes(health: Health, ready_checks: Collection[str] | None = None) -> list[web.RouteDef]:
    """Returns the routes /livez, /readyz and /metrics. Readiness requires `ready_checks`, or all checks if None."""

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": OK}, headers=HEADERS)

    async def readyz(_: web.Request) -> web.Response:
        checks = await health.report(ready_checks)
        failing = [name for name, state in checks.items() if state != OK]
        body = {"status": "unavailable" if failing else OK, "failing": failing, "checks": checks}
        return web.json_response(body, status=503 if failing else 200, headers=HEADERS)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={**HEADERS, "Content-Type": METRICS_CONTENT_TYPE})

    return [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]


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
    """Serves a worker's /metrics, /livez, /readyz and /health. With port 0, `port` is the actual one after `start`.

    Readiness requires `ready_checks`, or all checks if None; /health reports all of them, always with status 200.
    """

    def __init__(self, host: str, port: int, health: Health, ready_checks: Collection[str] | None = None) -> None:
        self.host = host
        self.port = port

        async def show_health(_: web.Request) -> web.Response:
            checks = await health.report()
            status = OK if all(state == OK for state in checks.values()) else "degraded"
            return web.json_response({"status": status, "checks": checks}, headers=HEADERS)

        application = web.Application()
        application.add_routes([*probe_routes(health, ready_checks), web.get("/health", show_health)])
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
