"""Middleware of the gateway: drain, request metrics, error responses and the rate limit."""

import asyncio
import contextlib
import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Counter, Histogram

from streams.gateway.responses import internal_error, problem_for, too_many_requests
from streams.gateway.routes import DEPENDENCIES
from streams.telemetry.metrics import REQUEST_LATENCY_S, REQUESTS

API_PREFIX = "/api/"
UNMATCHED = "unmatched"

log = structlog.get_logger()


class Drain:
    """Counts requests in flight, and waits for them before the server stops.

    aiohttp's own shutdown cannot do that: it drops what still arrives on open connections, and with it a request whose
    body is half sent. While draining, every response closes its connection.
    """

    def __init__(self) -> None:
        self._in_flight = 0
        self._is_draining = False
        self._is_idle = asyncio.Event()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Counts the request until its response is made."""
        self._in_flight += 1
        try:
            response = await handler(request)
        finally:
            self._in_flight -= 1
            if self._is_draining and self._in_flight == 0:
                self._is_idle.set()
        if self._is_draining:
            response.force_close()
        return response

    async def finish(self, timeout_s: float) -> None:
        """Waits until no request is in flight, at most `timeout_s` seconds.

        Refuse new connections first.
        """
        self._is_draining = True
        if self._in_flight == 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._is_idle.wait()


DRAIN = web.AppKey("DRAIN", Drain)


class RequestMetrics:
    """Counts and times requests by route template. Paths as labels would grow without bound."""

    def __init__(self) -> None:
        #: Looking up a labelled metric costs more than everything else here.
        self._counters: dict[tuple[str, int], Counter] = {}
        self._latencies: dict[str, Histogram] = {}

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Records the request once its response is made."""
        started_s = time.perf_counter()
        response = await handler(request)
        self._record(_route_of(request), response.status, time.perf_counter() - started_s)
        return response

    def _record(self, route: str, status: int, latency_s: float) -> None:
        counter = self._counters.get((route, status))
        if counter is None:
            counter = self._counters[route, status] = REQUESTS.labels(route, str(status))
        latency = self._latencies.get(route)
        if latency is None:
            latency = self._latencies[route] = REQUEST_LATENCY_S.labels(route)
        counter.inc()
        latency.observe(latency_s)


@web.middleware
async def errors_to_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every error into a problem response.

    Logs unexpected ones, whose response discloses nothing.
    """
    try:
        return await handler(request)
    except Exception as error:  # the edge of the server: a defect must cost one request, not the process
        response = problem_for(error)
        if response is None:
            log.error("request_failed", route=_route_of(request), method=request.method, exc_info=error)
            response = internal_error()
        return response


@web.middleware
async def rate_limit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Limits the requests of each client address to the API. Probes and metrics have no limit."""
    if request.path.startswith(API_PREFIX):
        dependencies = request.app[DEPENDENCIES]
        wait_s = dependencies.limiter.check(request.remote or "", dependencies.clock())
        if wait_s > 0:
            return too_many_requests(wait_s, dependencies.limiter.limit_per_minute)
    return await handler(request)


def _route_of(request: web.Request) -> str:
    """Returns the template of the route, like /api/v1/conversations/{id}, or "unmatched"."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical
