"""A stand-in for the Grok API: the documented wire format, latency, faults on request, and an account of every call."""

import asyncio
import random
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import orjson
from aiohttp import web

from schemas.errors import Rejected
from streams.standin.answers import Answerer, Completion
from streams.standin.faults import FaultChooser, FaultKind, FaultPlan
from streams.standin.requests import Question, check_key, read_question
from streams.standin.stats import Stats

#: Texts have at most 100,000 characters, of at most 6 bytes each when escaped.
_MAX_BODY_BYTES = 2 * 1024 * 1024
_BACKLOG = 4_096
_SLOW_PIECES = 10


@dataclass(frozen=True, slots=True)
class StandinConfig:
    """Latency is drawn evenly between the two; no `api_key` accepts any, no `models` knows all."""

    latency_min_s: float = 0.3
    latency_max_s: float = 0.9
    api_key: str | None = None
    models: tuple[str, ...] = ()
    faults: FaultPlan = field(default_factory=FaultPlan)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.latency_min_s <= self.latency_max_s:
            raise ValueError("latency needs 0 <= latency_min_s <= latency_max_s")


class _Standin:
    """The handlers and what they share."""

    def __init__(self, config: StandinConfig) -> None:
        self._config = config
        self._random = random.Random(config.seed)  # noqa: S311 - tests need runs that can be repeated
        self._faults = FaultChooser(config.faults, self._random.random)
        self._answerer = Answerer()
        self._stats = Stats()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        try:
            check_key(request.headers.get("Authorization"), self._config.api_key)
            question = read_question(await request.read(), self._config.models)
        except Rejected as error:
            return self._error(error.status, error.code, error.detail)
        digest = self._stats.began(question.text)
        cut_off = True
        try:
            response = await self._answer(request, question, digest)
            cut_off = False
            return response
        except ConnectionError:
            return web.Response(status=499)  # nobody is there to read it
        finally:
            self._stats.ended(cut_off=cut_off)

    async def _answer(self, request: web.Request, question: Question, digest: bytes) -> web.StreamResponse:
        fault, plan = self._faults.choose(question.text), self._faults.plan
        if fault is not None:
            self._stats.faulted(fault)
        if fault in (FaultKind.HTTP_429, FaultKind.HTTP_500, FaultKind.VIOLATION_403):
            await self._latency()
            return self._failure(fault, plan)
        completion = self._answerer.completion(question.system, question.text, question.model, fault)
        self._stats.billed(digest, completion.cost_usd_ticks)
        await self._latency()
        match fault:
            case FaultKind.HANG:
                await asyncio.sleep(plan.hang_s)
            case FaultKind.RESET:
                return _cut(request)
            case FaultKind.RESET_MID_BODY:
                await _stream(request, completion, pieces=2, stop_after=1, pause_s=0)
                return _cut(request)
            case FaultKind.SLOW_BODY:
                slow = await _stream(request, completion, _SLOW_PIECES, _SLOW_PIECES, plan.slow_body_s / _SLOW_PIECES)
                self._stats.replied(200)
                return slow
        self._stats.replied(200)
        return web.Response(body=completion.body, content_type="application/json")

    async def _latency(self) -> None:
        await asyncio.sleep(self._random.uniform(self._config.latency_min_s, self._config.latency_max_s))

    def _failure(self, fault: FaultKind, plan: FaultPlan) -> web.Response:
        if fault is FaultKind.HTTP_500:
            return self._error(500, "internal", "An internal error occurred.")
        if fault is FaultKind.VIOLATION_403:
            return self._error(403, "permission_denied", "Content violates usage guidelines.")
        response = self._error(429, "resource_exhausted", "Too many requests.")
        response.headers["Retry-After"] = str(plan.retry_after_s)
        return response

    def _error(self, status: int, code: str, detail: str) -> web.Response:
        self._stats.replied(status)
        return _json({"code": code, "error": detail}, status)

    async def put_faults(self, request: web.Request) -> web.Response:
        try:
            plan = msgspec.json.decode(await request.read(), type=FaultPlan)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _json({"code": "invalid_argument", "error": str(error)}, 400)
        self._faults = FaultChooser(plan, self._random.random)
        return _json(msgspec.to_builtins(plan))

    async def get_faults(self, request: web.Request) -> web.Response:
        return _json(msgspec.to_builtins(self._faults.plan))

    async def get_stats(self, request: web.Request) -> web.Response:
        return _json(self._stats.snapshot())

    async def delete_stats(self, request: web.Request) -> web.Response:
        self._stats.reset()
        return web.Response(status=204)

    async def healthz(self, request: web.Request) -> web.Response:
        return _json({"status": "ok"})


def build_application(config: StandinConfig) -> web.Application:
    """The application; run it with `handler_cancellation`, or calls that were cut off are counted late."""
    standin = _Standin(config)
    application = web.Application(client_max_size=_MAX_BODY_BYTES)
    application.router.add_post("/v1/chat/completions", standin.complete)
    application.router.add_put("/control/faults", standin.put_faults)
    application.router.add_get("/control/faults", standin.get_faults)
    application.router.add_get("/control/stats", standin.get_stats)
    application.router.add_delete("/control/stats", standin.delete_stats)
    application.router.add_get("/healthz", standin.healthz)
    return application


@asynccontextmanager
async def serving(config: StandinConfig, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """The stand-in at work inside this event loop; yields its address, "http://host:port", without "/v1"."""
    runner = web.AppRunner(
        build_application(config), access_log=None, handler_cancellation=True, shutdown_timeout=1, keepalive_timeout=75
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        bound_host, bound_port = runner.addresses[0][:2]
        yield f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"
    finally:
        await runner.cleanup()


async def run_standin(config: StandinConfig, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until cancelled; `ready` is told the address once calls are taken."""
    _allow_many_connections()
    async with serving(config, host, port) as address:
        ready(address)
        await asyncio.Event().wait()


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _stream(
    request: web.Request, completion: Completion, pieces: int, stop_after: int, pause_s: float
) -> web.StreamResponse:
    """Sends the first `stop_after` of so many pieces of the reply, with a pause after each."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(completion.body)
    await response.prepare(request)
    size = -(-len(completion.body) // pieces)
    for start in range(0, size * stop_after, size):
        await response.write(completion.body[start : start + size])
        await asyncio.sleep(pause_s)
    return response


def _cut(request: web.Request) -> web.Response:
    """Resets the connection; the response that the server insists on goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
