"""Builds the aiohttp application: routes, and the middleware around them. Connects to nothing."""

import asyncio
import contextlib
import time
from functools import cache

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Counter, Histogram

from schemas.conversation import MAX_VALUE_BYTES
from streams.gateway import routes
from streams.gateway.responses import problem, problem_for, too_many_requests
from streams.telemetry.health import probe_routes
from streams.telemetry.metrics import REQUEST_LATENCY_S, REQUESTS

#: Names of the checks in `Dependencies.health`.
BROKER = "broker"
DATABASE = "database"
LAG = "lag"
#: /readyz leaves out the lag: a slow worker must not take the gateway out of service.
READY_CHECKS = (BROKER, DATABASE)
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
        """Waits until no request is in flight, at most `timeout_s` seconds. Refuse new connections first."""
        self._is_draining = True
        if self._in_flight == 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._is_idle.wait()


DRAIN = web.AppKey("DRAIN", Drain)


@cache
def _request_count(route: str, status: int) -> Counter:
    """Cached, since looking up a labelled metric costs more than everything else in the middleware."""
    return REQUESTS.labels(route, str(status))


@cache
def _request_latency_s(route: str) -> Histogram:
    return REQUEST_LATENCY_S.labels(route)


@web.middleware
async def request_metrics(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts and times requests by route template. Paths as labels would grow without bound."""
    started_s = time.perf_counter()
    response = await handler(request)
    route = _route_of(request)
    _request_count(route, response.status).inc()
    _request_latency_s(route).observe(time.perf_counter() - started_s)
    return response


@web.middleware
async def errors_to_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every error into a problem response. Logs unexpected ones, whose response discloses nothing."""
    try:
        return await handler(request)
    except Exception as error:  # the edge of the server: a defect must cost one request, not the process
        response = problem_for(error)
        if response is None:
            log.error("request_failed", route=_route_of(request), method=request.method, exc_info=error)
            response = problem(500, "internal_error", "an unexpected error occurred and was logged")
        return response


@web.middleware
async def rate_limit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Limits the requests of each client address to the API. Probes and metrics have no limit."""
    if request.path.startswith(API_PREFIX):
        dependencies = request.app[routes.DEPENDENCIES]
        wait_s = dependencies.limiter.check(request.remote or "", dependencies.clock())
        if wait_s > 0:
            return too_many_requests(wait_s, dependencies.limiter.limit_per_minute)
    return await handler(request)


def _route_of(request: web.Request) -> str:
    """Returns the template of the route, like /api/v1/conversations/{id}, or "unmatched"."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical


def build_application(dependencies: routes.Dependencies) -> web.Application:
    """Returns the application; the caller runs it, and starts and closes the dependencies."""
    drain = Drain()
    application = web.Application(
        # Outermost first: the metrics count the responses that errors become.
        middlewares=[drain.middleware, request_metrics, errors_to_problems, rate_limit],
        client_max_size=MAX_VALUE_BYTES,
    )
    application[routes.DEPENDENCIES] = dependencies
    application[DRAIN] = drain
    application.add_routes(
        [
            web.post("/api/v1/conversations", routes.accept_conversation),
            web.get("/api/v1/conversations/{id:[^/]+}", routes.show_conversation),
            web.get("/api/v1/insights", routes.list_insights),
            web.get("/health", routes.show_health),
            *probe_routes(dependencies.health, READY_CHECKS),
        ]
    )
    return application
