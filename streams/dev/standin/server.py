"""The stand-in's HTTP server: the documented wire format, latency, faults on request, and control routes."""

import asyncio
import hashlib
import os
import random
import resource
import socket
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import orjson
from aiohttp import web

from schemas.errors import Fatal, Rejected
from streams.dev.standin.completions import (
    Answerer,
    Completion,
    Question,
    check_key,
    describe_model,
    describe_models,
    read_question,
)
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
#: Faults after which no complete reply was sent.
_LOSE_THE_REPLY = frozenset({FaultKind.RESET, FaultKind.RESET_MID_BODY})


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


class End(StrEnum):
    """How a call ended, as the stand-in saw it."""

    ANSWERED = "answered"  # a complete 200 was sent
    CUT_OFF = "cut_off"  # the client disconnected before the reply was complete
    FAILED = "failed"  # an error status, or a fault that lost the reply


class Call(msgspec.Struct):
    """A call in flight. `text` is the text's digest, `caller` the hash of the key, times are Unix seconds."""

    text: bytes
    caller: str
    began_s: float
    fault: FaultKind | None = None

    def end_by(self, status: int) -> End:
        """Returns the end of a call whose client stayed until the reply with `status`."""
        return End.ANSWERED if status == 200 and self.fault not in _LOSE_THE_REPLY else End.FAILED


class Journal:
    """A file with one line of JSON for each finished call. Raises Fatal when it cannot be written."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            why = f"{path}: {error.strerror}"
            raise Fatal("the journal cannot be written", why, "choose another file with --journal") from error
        # Not closed with the server: calls may end after its shutdown.
        weakref.finalize(self, os.close, self._file)

    def append(self, call: Call, end: End, ended_s: float) -> None:
        """Hands the line to the operating system, so that it survives a kill of this process."""
        entry = msgspec.structs.asdict(call) | {"text": call.text.hex(), "end": end, "ended_s": ended_s}
        os.write(self._file, msgspec.json.encode(entry) + b"\n")


class Stats:
    """Counts since the start or the last reset; calls in flight are carried over.

    A call is billed unless it was answered with an error status: a provider may charge for a reply that was cut off,
    late or lost, and the client cannot know.
    """

    def __init__(self) -> None:
        self._in_flight: Counter[str] = Counter()
        self.hanging = 0  # calls in flight that hang
        self.reset()

    def reset(self) -> None:
        """Resets everything but the calls in flight."""
        self._max_in_flight = self._in_flight.total()
        self._cut_off = 0
        self._cost_usd_ticks = 0
        self._asked: Counter[bytes] = Counter()
        self._billed: Counter[bytes] = Counter()
        self.by_status: Counter[int] = Counter()  # complete replies
        self.by_fault: Counter[FaultKind] = Counter()

    def began(self, text: str, caller: str) -> bytes:
        """Counts a valid call of `caller`; returns the text's digest, to be passed to `billed`."""
        digest = hashlib.sha256(text.encode()).digest()
        self._asked[digest] += 1
        self._in_flight[caller] += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight.total())
        return digest

    def ended(self, caller: str, *, cut_off: bool) -> None:
        """Counts the end of a call; `cut_off` when the client disconnected before its reply."""
        self._in_flight[caller] -= 1
        if not self._in_flight[caller]:
            del self._in_flight[caller]
        self._cut_off += cut_off

    def billed(self, digest: bytes, cost_usd_ticks: int) -> None:
        """Counts an answer that was made, whether or not it arrives."""
        self._billed[digest] += 1
        self._cost_usd_ticks += cost_usd_ticks

    def snapshot(self) -> dict[str, Any]:
        """Returns all figures, for `GET /control/stats`."""
        return {
            "calls": self._asked.total(),
            "distinct_texts": len(self._asked),
            "repeated_texts": sum(count > 1 for count in self._asked.values()),
            "answered": self.by_status[200],
            "billed": self._billed.total(),
            "billed_texts": len(self._billed),
            "billed_again_texts": sum(count > 1 for count in self._billed.values()),
            "billed_usd_ticks": self._cost_usd_ticks,
            "in_flight": self._in_flight.total(),
            "in_flight_by_caller": dict(self._in_flight),
            "hanging": self.hanging,
            "max_in_flight": self._max_in_flight,
            "cut_off": self._cut_off,
            "by_status": {str(status): count for status, count in sorted(self.by_status.items())},
            "faults": {kind.value: count for kind, count in sorted(self.by_fault.items())},
        }


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
            self._stats.by_status[rejected.status] += 1
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

    async def show_models(self, request: web.Request) -> web.Response:
        """All models, or the one that is named; free, and no call."""
        models, name = self._config.models, request.match_info.get("model")
        try:
            check_key(request.headers.get("Authorization"), self._config.api_key)
            return _as_json(describe_models(models) if name is None else describe_model(name, models))
        except Rejected as rejected:
            return _error(rejected.status, rejected.code, rejected.detail)

    async def _reply(self, request: web.Request, question: Question, call: Call) -> web.StreamResponse:
        """Sends the reply within the handler: later, a client that disconnected before it could not be noticed."""
        response = await self._response(request, question, call)
        if call.fault in _LOSE_THE_REPLY:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # never sent
        await response.prepare(request)
        await response.write_eof()
        self._stats.by_status[response.status] += 1
        return response

    async def _response(self, request: web.Request, question: Question, call: Call) -> web.StreamResponse:
        plan = self._faults.plan
        call.fault = fault = self._faults.choose(question.text)
        if fault is not None:
            self._stats.by_fault[fault] += 1
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


@asynccontextmanager
async def serving(config: StandinConfig, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Runs the stand-in in this event loop; yields its address, "http://host:port", without "/v1".

    Raises Fatal when the journal cannot be written.
    """
    standin = _Standin(config)
    application = web.Application(client_max_size=_MAX_BODY_BYTES)
    application.router.add_post("/v1/chat/completions", standin.complete)
    application.router.add_get("/v1/models", standin.show_models)
    application.router.add_get("/v1/models/{model:.+}", standin.show_models)
    application.router.add_put("/control/faults", standin.put_faults)
    application.router.add_get("/control/faults", standin.get_faults)
    application.router.add_get("/control/stats", standin.get_stats)
    application.router.add_delete("/control/stats", standin.delete_stats)
    application.router.add_get("/healthz", standin.healthz)
    # Without handler_cancellation, calls that were cut off would be counted late.
    runner = web.AppRunner(
        application, access_log=None, handler_cancellation=True, shutdown_timeout=1, keepalive_timeout=75
    )
    await runner.setup()
    try:
        assert runner.server is not None, "setup() makes it"
        with _listening(host, port, runner.server) as (bound_host, bound_port):
            yield f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"
    finally:
        await runner.cleanup()


@contextmanager
def _listening(host: str, port: int, protocols: Callable[[], asyncio.Protocol]) -> Iterator[tuple[str, int]]:
    """Accepts all connections that wait, in one turn of the loop; yields the address.

    uvloop's own server accepts one in each turn (github.com/libuv/libuv/pull/3696). While other callers keep the
    stand-in busy, turns are long: a worker's first 512 calls then lie in the socket's queue for ten seconds and more,
    unseen, and a rebalance cuts them off although they were sent long before it.
    """
    loop = asyncio.get_running_loop()
    accepting: set[asyncio.Task[Any]] = set()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(protocols, connection))
            accepting.add(task)
            task.add_done_callback(accepting.discard)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, accept)
        try:
            yield listener.getsockname()[:2]
        finally:
            loop.remove_reader(listener)


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
