"""The stand-in's HTTP server: the documented wire format, latency, faults on request, and control routes."""

import asyncio
import random
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import orjson
from aiohttp import web

from schemas.errors import Rejected
from streams.dev.standin.accounting import LOSE_THE_REPLY, Call, End, Journal, Stats
from streams.dev.standin.completions import Answerer, Completion, Question, check_key, read_question
from streams.dev.standin.faults import FaultChooser, FaultKind, FaultPlan

#: Texts have at most 100,000 characters, of at most 6 bytes each when escaped.
_MAX_BODY_BYTES = 2 * 1024 * 1024
_BACKLOG = 4_096
_SLOW_PIECES = 10
_JSON = {"Content-Type": "application/json"}
#: Faults that are answered with an error status; no answer is made for them.
_ERRORS = {
    FaultKind.HTTP_429: (429, "resource_exhausted", "Too many requests."),
    FaultKind.HTTP_500: (500, "internal", "An internal error occurred."),
    FaultKind.VIOLATION_403: (403, "permission_denied", "Content violates usage guidelines."),
}


@dataclass(frozen=True, slots=True)
class StandinConfig:
    """Latency is drawn uniformly between the two; no `api_key` accepts any, no `models` means that all exist.

    `journal` is the file that gets a line for each finished call.
    """

    latency_min_s: float = 0.3
    latency_max_s: float = 0.9
    api_key: str | None = None
    models: tuple[str, ...] = ()
    faults: FaultPlan = field(default_factory=FaultPlan)
    seed: int = 0
    journal: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.latency_min_s <= self.latency_max_s:
            raise ValueError("latency needs 0 <= latency_min_s <= latency_max_s")


class _Standin:
    """The handlers and the state that they share."""

    def __init__(self, config: StandinConfig) -> None:
        self._config = config
        self._random = random.Random(config.seed)  # noqa: S311 - tests need runs that can be repeated
        self._answerer = Answerer()
        self._stats = Stats()
        self._journal = Journal(config.journal) if config.journal else None
        self._follow(config.faults)

    def _follow(self, plan: FaultPlan) -> None:
        self._faults = FaultChooser(plan, self._random.random)
        self._replaced = asyncio.Event()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = check_key(request.headers.get("Authorization"), self._config.api_key)
            question = read_question(await request.read(), self._config.models)
        except Rejected as rejected:
            self._stats.replied(rejected.status)
            return _error(rejected.status, rejected.code, rejected.detail)
        call = Call(self._stats.began(question.text, caller), caller, time.time())
        end = End.FAILED
        try:
            response = await self._reply(request, question, call)
            end = call.end_by(response.status)
            return response
        except ConnectionError:
            end = End.CUT_OFF
            return web.Response(status=499)  # never sent: the client has disconnected
        except asyncio.CancelledError:
            end = End.CUT_OFF
            raise
        finally:
            self._stats.ended(caller, cut_off=end is End.CUT_OFF)
            if self._journal is not None:
                self._journal.append(call, end, time.time())

    async def _reply(self, request: web.Request, question: Question, call: Call) -> web.StreamResponse:
        """Sends the reply within the handler: later, a client that disconnected before it could not be noticed."""
        response = await self._response(request, question, call)
        if call.fault in LOSE_THE_REPLY:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # never sent
        await response.prepare(request)
        await response.write_eof()
        self._stats.replied(response.status)
        return response

    async def _response(self, request: web.Request, question: Question, call: Call) -> web.StreamResponse:
        plan = self._faults.plan
        call.fault = fault = self._faults.choose(question.text)
        if fault is not None:
            self._stats.faulted(fault)
        if fault in _ERRORS:
            await self._latency()
            headers = {"Retry-After": str(plan.retry_after_s)} if fault is FaultKind.HTTP_429 else {}
            return _error(*_ERRORS[fault], headers)
        completion = self._answerer.completion(question.system, question.text, question.model, fault)
        self._stats.billed(call.text, completion.cost_usd_ticks)
        await self._latency()
        match fault:
            case FaultKind.HANG:
                await self._hang(question.text, plan.hang_s)
            case FaultKind.RESET_MID_BODY:
                return await _stream(request, completion, pieces=2, stop_after=1, pause_s=0)
            case FaultKind.SLOW_BODY:
                pause_s = plan.slow_body_s / _SLOW_PIECES
                return await _stream(request, completion, _SLOW_PIECES, _SLOW_PIECES, pause_s)
        return web.Response(body=completion.body, headers=_JSON)

    async def _latency(self) -> None:
        if self._config.latency_max_s:
            await asyncio.sleep(self._random.uniform(self._config.latency_min_s, self._config.latency_max_s))

    async def _hang(self, text: str, hang_s: float) -> None:
        """Waits for `hang_s`, or until the plan is replaced by one under which this text does not hang."""
        self._stats.hanging += 1
        try:
            async with asyncio.timeout(hang_s):
                while self._faults.plan.hangs(text):
                    await self._replaced.wait()
        except TimeoutError:
            pass
        finally:
            self._stats.hanging -= 1

    async def put_faults(self, request: web.Request) -> web.Response:
        try:
            plan = msgspec.json.decode(await request.read(), type=FaultPlan)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _error(400, "invalid_argument", str(error))
        self._replaced.set()
        self._follow(plan)
        return _as_json(msgspec.to_builtins(plan))

    async def get_faults(self, request: web.Request) -> web.Response:
        return _as_json(msgspec.to_builtins(self._faults.plan))

    async def get_stats(self, request: web.Request) -> web.Response:
        return _as_json(self._stats.snapshot())

    async def delete_stats(self, request: web.Request) -> web.Response:
        self._stats.reset()
        return web.Response(status=204)

    async def healthz(self, request: web.Request) -> web.Response:
        return _as_json({"status": "ok"})


def _as_json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, headers={**_JSON, **(headers or {})})


def _error(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """Returns an error in the provider's format."""
    return _as_json({"code": code, "error": detail}, status, headers)


async def _stream(
    request: web.Request, completion: Completion, pieces: int, stop_after: int, pause_s: float
) -> web.StreamResponse:
    """Splits the reply into `pieces` and sends the first `stop_after`, with a pause after each."""
    response = web.StreamResponse(headers=_JSON)
    response.content_length = len(completion.body)
    await response.prepare(request)
    size = -(-len(completion.body) // pieces)
    for start in range(0, size * stop_after, size):
        await response.write(completion.body[start : start + size])
        await asyncio.sleep(pause_s)
    return response


def build_application(config: StandinConfig) -> web.Application:
    """Run it with `handler_cancellation`, or calls that were cut off are counted late.

    Raises Fatal when the journal cannot be written.
    """
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
    """Runs the stand-in in this event loop; yields its address, "http://host:port", without "/v1"."""
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
    """Serves until cancelled; calls `ready` with the address once it listens."""
    _raise_file_limit()
    async with serving(config, host, port) as address:
        ready(address)
        await asyncio.Event().wait()


def _raise_file_limit() -> None:
    """Allows tens of thousands of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
