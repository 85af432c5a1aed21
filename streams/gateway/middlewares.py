"""What surrounds every handler: time and status into the metrics, errors into problems, the limit on /api/."""

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Counter, Histogram

from streams.gateway.parts import PARTS
from streams.gateway.responses import internal_error, problem_of, too_many_requests
from streams.telemetry.metrics import REQUEST_LATENCY_S, REQUESTS

API_PREFIX = "/api/"
UNMATCHED = "unmatched"

_log = structlog.get_logger()


class Measured:
    """Counts and times requests by route template, never by path: labels stay few whatever is asked for."""

    def __init__(self) -> None:
        # Finding a labelled metric anew costs more than all else in here.
        self._counters: dict[tuple[str, int], Counter] = {}
        self._latencies: dict[str, Histogram] = {}

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s = time.perf_counter()
        response = await handler(request)
        self._record(route_of(request), response.status, time.perf_counter() - started_s)
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


def route_of(request: web.Request) -> str:
    """The template of the route that matched, like /api/v1/conversations/{id}, or "unmatched"."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical


@web.middleware
async def explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as a problem; one that nobody foresaw is logged here and tells the client nothing."""
    try:
        return await handler(request)
    except Exception as error:  # the edge of the server: a defect must cost one request, not the process
        answer = problem_of(error)
        if answer is None:
            _log.error("request_failed", route=route_of(request), method=request.method, exc_info=error)
            answer = internal_error()
        return answer


@web.middleware
async def limited(request: web.Request, handler: Handler) -> web.StreamResponse:
    """At most so many requests a minute and client address; probes and metrics are never refused."""
    if request.path.startswith(API_PREFIX):
        parts = request.app[PARTS]
        wait_s = parts.limiter.check(request.remote or "", parts.clock())
        if wait_s > 0:
            return too_many_requests(wait_s, parts.limiter.limit_per_minute)
    return await handler(request)
