"""A stand-in for the Grok API: the documented wire format, latency, faults on request, and an account of every call."""

import asyncio
import random
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web

from schemas.errors import Rejected
from streams.standin import replies
from streams.standin.answers import Answerer
from streams.standin.calls import LOSE_THE_REPLY, Call, End
from streams.standin.faults import FaultChooser, FaultKind, FaultPlan
from streams.standin.journal import Journal
from streams.standin.requests import Question, check_key, read_question
from streams.standin.stats import Stats

#: Texts have at most 100,000 characters, of at most 6 bytes each when escaped.
_MAX_BODY_BYTES = 2 * 1024 * 1024
_BACKLOG = 4_096
_SLOW_PIECES = 10


@dataclass(frozen=True, slots=True)
class StandinConfig:
    """Latency is drawn evenly between the two; no `api_key` accepts any, no `models` knows all.

    `journal` is the file that gets a line for each call that is over.
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
    """The handlers and what they share."""

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
            return replies.error(rejected.status, rejected.code, rejected.detail)
        call = Call(self._stats.began(question.text, caller), caller, time.time())
        end = End.FAILED
        try:
            response = await self._reply(request, question, call)
            end = call.end_by(response.status)
            return response
        except ConnectionError:
            end = End.CUT_OFF
            return web.Response(status=499)  # nobody is there to read it
        except asyncio.CancelledError:
            end = End.CUT_OFF
            raise
        finally:
            self._ended(call, end)

    def _ended(self, call: Call, end: End) -> None:
        self._stats.ended(call.caller, cut_off=end is End.CUT_OFF)
        if self._journal is not None:
            self._journal.append(call.entry(end, time.time()))

    async def _reply(self, request: web.Request, question: Question, call: Call) -> web.StreamResponse:
        """Replies within the handler: only here can it be seen that a client left before its reply was sent."""
        response = await self._response(request, question, call)
        if call.fault in LOSE_THE_REPLY:
            return replies.cut(request)
        await replies.send(request, response)
        self._stats.replied(response.status)
        return response

    async def _response(self, request: web.Request, question: Question, call: Call) -> web.StreamResponse:
        plan = self._faults.plan
        call.fault = fault = self._faults.choose(question.text)
        if fault is not None:
            self._stats.faulted(fault)
        if fault in replies.ERROR_STATUS:
            await self._latency()
            return replies.failure(fault, plan)
        completion = self._answerer.completion(question.system, question.text, question.model, fault)
        self._stats.billed(call.text, completion.cost_usd_ticks)
        await self._latency()
        match fault:
            case FaultKind.HANG:
                await self._hang(question.text, plan.hang_s)
            case FaultKind.RESET_MID_BODY:
                return await replies.stream(request, completion, pieces=2, stop_after=1, pause_s=0)
            case FaultKind.SLOW_BODY:
                pause_s = plan.slow_body_s / _SLOW_PIECES
                return await replies.stream(request, completion, _SLOW_PIECES, _SLOW_PIECES, pause_s)
        return replies.answer(completion)

    async def _latency(self) -> None:
        await asyncio.sleep(self._random.uniform(self._config.latency_min_s, self._config.latency_max_s))

    async def _hang(self, text: str, hang_s: float) -> None:
        """Until the time is over, or another plan is put by which this text does not hang."""
        with self._stats.hanging(), suppress(TimeoutError):
            async with asyncio.timeout(hang_s):
                while self._faults.plan.hangs(text):
                    await self._replaced.wait()

    async def put_faults(self, request: web.Request) -> web.Response:
        try:
            plan = msgspec.json.decode(await request.read(), type=FaultPlan)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return replies.error(400, "invalid_argument", str(error))
        self._replaced.set()
        self._follow(plan)
        return replies.as_json(msgspec.to_builtins(plan))

    async def get_faults(self, request: web.Request) -> web.Response:
        return replies.as_json(msgspec.to_builtins(self._faults.plan))

    async def get_stats(self, request: web.Request) -> web.Response:
        return replies.as_json(self._stats.snapshot())

    async def delete_stats(self, request: web.Request) -> web.Response:
        self._stats.reset()
        return web.Response(status=204)

    async def healthz(self, request: web.Request) -> web.Response:
        return replies.as_json({"status": "ok"})


def build_application(config: StandinConfig) -> web.Application:
    """The application; run it with `handler_cancellation`, or calls that were cut off are counted late.

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
