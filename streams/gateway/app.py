"""Builds the aiohttp application: routes, and the middleware around them. Connects to nothing."""

import asyncio
import contextlib
import math
import time
from functools import cache
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Counter, Histogram

from schemas.conversation import MAX_VALUE_BYTES
from schemas.errors import Rejected
from streams.gateway import routes
from streams.gateway.insights import DatabaseUnavailable
from streams.gateway.publisher import BrokerUnavailable
from streams.gateway.routes import problem
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
#: Codes for errors that aiohttp raises itself; other statuses use their reason phrase as the code.
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 417: "expectation_failed"}

_ADVICE = {
    404: f"nothing is here: post to {routes.CONVERSATIONS_PATH}, and read lists at {routes.INSIGHTS_PATH}",
    405: f"the header Allow names the methods of this address; lists are at {routes.INSIGHTS_PATH}",
}

log = structlog.get_logger()


class Drain:
    """Counts requests in flight, and waits for them before the server stops.

    aiohttp's own shutdown cannot do that: it drops data that still arrives on open connections, and with it a request
    whose body is half sent. While draining, every response closes its connection.
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
    except Exception as error:  # the edge of the server: a defect must fail one request, not the process
        response = _problem_for(error)
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
            detail = f"more than {dependencies.limiter.limit_per_minute} requests per minute from this address"
            return problem(429, "rate_limited", detail, headers=_retry_after(wait_s))
    return await handler(request)


def _problem_for(error: Exception) -> web.Response | None:
    """Returns the response to an expected error, None for a defect."""
    match error:
        case Rejected():
            return problem(error.status, error.code, error.detail, field=error.field)
        case BrokerUnavailable():
            return _unavailable("broker_unavailable", error)
        case DatabaseUnavailable():
            return _unavailable("database_unavailable", error)
        case web.RequestPayloadError():
            return problem(400, "malformed_body", "the body does not match its framing headers")
        case ConnectionError():
            # The client has gone and does not read this; it keeps the disconnect from being logged as a defect.
            return problem(400, "incomplete_body", "the connection was closed before the body was complete")
        case web.HTTPException() if error.status >= 400:
            phrase = HTTPStatus(error.status).phrase
            code = _CODES.get(error.status, phrase.lower().replace(" ", "_").replace("-", "_"))
            allow = error.headers.get("Allow")
            detail = _ADVICE.get(error.status, phrase)
            return problem(error.status, code, detail, headers={"Allow": allow} if allow else None)
    return None


def _unavailable(code: str, error: BrokerUnavailable | DatabaseUnavailable) -> web.Response:
    return problem(503, code, error.detail, headers=_retry_after(error.retry_after_s or 1.0))


def _retry_after(wait_s: float) -> dict[str, str]:
    """Rounds up to whole seconds, so that a client that honours it never retries early."""
    return {"Retry-After": str(max(1, math.ceil(wait_s)))}


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
            web.post(routes.CONVERSATIONS_PATH, routes.accept_conversation),
            web.get(routes.CONVERSATIONS_PATH + "/{id:[^/]+}", routes.show_conversation),
            web.get(routes.INSIGHTS_PATH, routes.list_insights),
            web.get("/health", routes.show_health),
            *probe_routes(dependencies.health, READY_CHECKS),
        ]
    )
    return application
