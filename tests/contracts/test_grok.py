"""The Grok client against the stand-in over real HTTP: every fault, the breaker, and the account of both sides."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from agents.analyser import NOTHING
from agents.grok.client import MAX_REPLY_BYTES, GrokAnalyser
from agents.grok.reply import read_reply
from agents.limits.breaker import CircuitBreaker
from schemas.errors import Fatal, InsightsError, Retryable, Unprocessable
from schemas.insight import Usage
from streams.dev.standin.faults import FaultKind, FaultPlan, Marker
from streams.dev.standin.server import StandinConfig, serving
from tests.fakes.analysis import at_once

TEXT = "user: my parcel is late, I want a refund"


class Observed:
    """Keeps what the client tells of its calls."""

    def __init__(self) -> None:
        self.usages: list[Usage] = []
        self.failures: list[tuple[str, bool]] = []
        self.states: list[str] = []

    def call_succeeded(self, latency_s: float, usage: Usage) -> None:
        assert latency_s >= 0
        self.usages.append(usage)

    def call_failed(self, error_class: str, latency_s: float, *, ambiguous: bool, usage: Usage = NOTHING) -> None:
        assert latency_s >= 0
        self.failures.append((error_class, ambiguous))

    def breaker_changed(self, state: str) -> None:
        self.states.append(state)


class Clock:
    """Moves only by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Client:
    """A client, what it was given, and the stand-in's control routes."""

    def __init__(self, address: str, **settings: Any) -> None:
        self.observed, self.clock, self.address = Observed(), Clock(), address
        defaults: dict[str, Any] = {
            "base_url": f"{address}/v1",
            "api_key": "key-for-tests",
            "model": "grok-x",
            "timeout_s": 10,
            "breaker": CircuitBreaker(errors=5, cooldown_s=10),
            "observer": self.observed,
            "wait_allowed": at_once,
            "max_connections": 64,
            "clock": self.clock,
        }
        self.analyser = GrokAnalyser(**defaults | settings)

    async def plan(self, plan: FaultPlan) -> None:
        async with aiohttp.ClientSession() as session:
            body = msgspec.json.encode(plan)
            async with session.put(f"{self.address}/control/faults", data=body) as response:
                assert response.status == 200

    async def stats(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.address}/control/stats") as response:
            figures: dict[str, Any] = await response.json()
            return figures

    async def fails(self, text: str = TEXT) -> InsightsError:
        with pytest.raises(InsightsError) as raised:
            await self.analyser.analyse(text)
        return raised.value


@asynccontextmanager
async def client_of(
    plan: FaultPlan = FaultPlan(),  # noqa: B008 - frozen
    *,
    latency_s: float = 0,
    api_key: str | None = None,
    models: tuple[str, ...] = (),
    **settings: Any,
) -> AsyncIterator[Client]:
    config = StandinConfig(latency_s, latency_s, api_key, models, plan)
    async with serving(config) as address, started(Client(address, **settings)) as client:
        yield client


@asynccontextmanager
async def started(client: Client) -> AsyncIterator[Client]:
    await client.analyser.start()
    try:
        yield client
    finally:
        await client.analyser.stop()


@asynccontextmanager
async def client_of_handler(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[Client]:
    """For replies that the stand-in does not make."""
    application = web.Application()
    application.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with started(Client(f"http://127.0.0.1:{runner.addresses[0][1]}")) as client:
            yield client
    finally:
        await runner.cleanup()


def always(kind: FaultKind, **plan: Any) -> FaultPlan:
    return FaultPlan(rates={kind: 1.0}, **plan)


async def test_the_stand_ins_answer_passes_the_check() -> None:
    """And both sides agree on what it cost."""
    async with client_of() as client:
        answer = await client.analyser.analyse(TEXT)
        assert (answer.model, answer.insight.intent) == ("grok-x", "request_refund")
        assert client.observed.usages == [answer.usage]
        assert (await client.stats())["billed_usd_ticks"] == answer.usage.cost_usd_ticks > 0


@pytest.mark.parametrize(
    ("kind", "error", "failure"),
    [
        (FaultKind.HTTP_429, Retryable, ("rate_limited", False)),
        (FaultKind.HTTP_500, Retryable, ("server", False)),
        (FaultKind.RESET, Retryable, ("connection", True)),
        (FaultKind.RESET_MID_BODY, Retryable, ("connection", True)),
        (FaultKind.REFUSAL, Unprocessable, ("client", False)),
        (FaultKind.VIOLATION_403, Unprocessable, ("client", False)),
    ],
)
async def test_each_fault_has_its_error(kind: FaultKind, error: type[Exception], failure: tuple[str, bool]) -> None:
    """One call each: whether to try again is the caller's decision."""
    async with client_of(always(kind)) as client:
        assert isinstance(await client.fails(), error)
        assert client.observed.failures == [failure]
        assert (await client.stats())["calls"] == 1


@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.SLOW_BODY])
async def test_a_reply_that_does_not_come_in_time_may_have_been_billed(kind: FaultKind) -> None:
    """The limit is for the whole call, also while the body trickles."""
    async with client_of(always(kind, hang_s=60, slow_body_s=60), timeout_s=0.3) as client:
        assert isinstance(await client.fails(), Retryable)
        assert client.observed.failures == [("timeout", True)]


async def test_retry_after_is_passed_on() -> None:
    """The provider knows best when to come back."""
    async with client_of(always(FaultKind.HTTP_429, retry_after_s=17)) as client:
        error = await client.fails()
        assert isinstance(error, Retryable)
        assert error.retry_after_s == 17


async def test_nobody_listening_is_no_bill() -> None:
    """The request was never sent."""
    async with serving(StandinConfig()) as address:
        pass
    async with started(Client(address)) as client:
        assert isinstance(await client.fails(), Retryable)
        assert client.observed.failures == [("connection", False)]


@pytest.mark.parametrize("kind", [FaultKind.BAD_JSON, FaultKind.BAD_SCHEMA])
async def test_a_bad_answer_is_asked_for_once_more(kind: FaultKind) -> None:
    """Both calls were billed, and the answer's usage says so; two bad ones end the text."""
    async with client_of(FaultPlan(markers=(Marker("#once", kind, times=1), Marker("#always", kind)))) as client:
        answer = await client.analyser.analyse("#once")
        assert client.observed.failures == [("bad_answer", False)]
        assert (await client.stats())["billed_usd_ticks"] == answer.usage.cost_usd_ticks
        error = await client.fails("#always")
        assert isinstance(error, Unprocessable)
        assert (error.reason, (await client.stats())["calls"]) == ("bad_answer", 4)


async def test_each_call_asks_whether_it_may_be_paid_for() -> None:
    """Also the second one, after a bad answer: the partition may have been taken away meanwhile."""
    allowed = Allowance(2)
    plan = FaultPlan(rates={FaultKind.BAD_SCHEMA: 1})
    async with client_of(plan, wait_allowed=allowed) as client:
        assert str(await client.fails()) == "taken away"
        assert (allowed.asked, (await client.stats())["calls"]) == (3, 1)


async def test_a_call_that_may_not_be_paid_for_any_more_is_not_sent() -> None:
    """Asked once more when the connection is there: what stood in between may have taken long. Grok hears nothing, the
    breaker learns nothing, and no reply is lost."""
    allowed = Allowance(1)
    async with client_of(wait_allowed=allowed, breaker=CircuitBreaker(errors=1, cooldown_s=10)) as client:
        assert str(await client.fails()) == "taken away"
        assert (allowed.asked, (await client.stats())["calls"]) == (2, 0)
        assert (client.observed.states, client.observed.failures) == ([], [])
        allowed.times = 4
        assert (await client.analyser.analyse(TEXT)).usage.completion_tokens


async def test_a_call_waits_for_its_turn_with_the_connection_open() -> None:
    """The group may count the worker in again soon."""
    allowed = Allowance(1, waits=True)
    async with client_of(wait_allowed=allowed) as client:
        answer = asyncio.ensure_future(client.analyser.analyse(TEXT))
        await allowed.is_waited_for.wait()
        assert (await client.stats())["calls"] == 0
        allowed.again.set()
        await answer
        assert (await client.stats())["calls"] == 1


class Allowance:
    """May be asked so many times; after that it refuses, or waits until `again` is set."""

    def __init__(self, times: int, *, waits: bool = False) -> None:
        self.times, self.asked, self._waits = times, 0, waits
        self.is_waited_for, self.again = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.asked += 1
        if self.asked <= self.times:
            return
        if not self._waits:
            raise Retryable("taken away")
        self.is_waited_for.set()
        await self.again.wait()


async def test_an_answer_without_usage_is_still_an_answer() -> None:
    """Nothing to price, nothing to fail for."""
    async with client_of(always(FaultKind.NO_USAGE), cost_per_1k_usd=1.0) as client:
        assert (await client.analyser.analyse(TEXT)).usage == Usage()


@pytest.mark.parametrize(
    ("settings", "setting"),
    [({"api_key": "another"}, "XAI_API_KEY"), ({"models": ("grok-y",)}, "GROK_MODEL")],
    ids=["wrong key", "no such model"],
)
async def test_wrong_settings_stop_the_work(settings: dict[str, Any], setting: str) -> None:
    """Fatal names what to change, never the key."""
    async with client_of(**settings) as client:
        error = await client.fails()
        assert isinstance(error, Fatal)
        assert setting in error.hint
        assert "key-for-tests" not in repr(vars(error))


async def test_five_errors_in_a_row_pause_calls_and_one_probe_decides() -> None:
    """While open nothing is sent; after the cool-down exactly one of many goes through; success lets all through."""
    async with client_of(always(FaultKind.HTTP_500)) as client:
        for _ in range(5):
            await client.fails()
        paused = await client.fails()
        assert isinstance(paused, Retryable)
        assert paused.retry_after_s == 10
        client.clock.now_s += 10
        results = await asyncio.gather(*(client.fails(f"text {n}") for n in range(20)))
        assert all(isinstance(error, Retryable) for error in results)
        assert (await client.stats())["calls"] == 6
        await client.plan(FaultPlan())
        client.clock.now_s += 10
        await client.analyser.analyse(TEXT)
        await asyncio.gather(*(client.analyser.analyse(f"text {n}") for n in range(20)))
        assert client.observed.states == ["open", "half_open", "open", "half_open", "closed"]


async def test_refused_texts_do_not_pause_calls() -> None:
    """They say nothing against the provider."""
    async with client_of(always(FaultKind.REFUSAL)) as client:
        for _ in range(10):
            await client.fails()
        assert client.observed.states == []


async def test_a_cancelled_call_may_have_been_billed_and_frees_the_probe() -> None:
    """The stand-in sees the client go, the client counts the call as ambiguous: both accounts agree."""
    async with client_of(latency_s=60) as client:
        task = asyncio.create_task(client.analyser.analyse(TEXT))
        async with asyncio.timeout(10):
            while (await client.stats())["in_flight"] == 0:
                pass
            task.cancel()
            await asyncio.wait({task})
            while (await client.stats())["cut_off"] == 0:
                pass
        assert task.cancelled()
        assert client.observed.failures == [("cancelled", True)]


async def test_many_calls_at_once_are_all_answered() -> None:
    """300 at a time, each text asked for once."""
    async with client_of(latency_s=0.05, max_connections=300) as client:
        await asyncio.gather(*(client.analyser.analyse(f"text {n}") for n in range(600)))
        figures = await client.stats()
        assert (figures["calls"], figures["repeated_texts"], figures["in_flight"]) == (600, 0, 0)
        assert 1 < figures["max_in_flight"] <= 300


async def test_redirects_are_not_followed() -> None:
    """The key must not travel to wherever a reply points."""
    reached: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        reached.append(request.path_qs)
        return web.Response(status=307, headers={"Location": "/v1/chat/completions?elsewhere"})

    async with client_of_handler(redirect) as client:
        error = await client.fails()
        assert isinstance(error, Fatal)
        assert reached == ["/v1/chat/completions"]


async def test_an_endless_reply_is_cut_off() -> None:
    """Memory is bounded by MAX_REPLY_BYTES, and such replies pause calls."""
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 100 * MAX_REPLY_BYTES:
            await response.write(b" " * 65_536)
            sent += 65_536
        return response

    async with client_of_handler(endless) as client:
        error = await client.fails()
        assert isinstance(error, Unprocessable)
        assert error.reason == "bad_answer"
    assert sent < 50 * MAX_REPLY_BYTES


async def test_a_proxys_page_in_place_of_replies_pauses_calls() -> None:
    """Status 200 or not: it must not turn conversation after conversation into dead letters."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>down for maintenance</html>", content_type="text/html")

    async with client_of_handler(page) as client:
        for _ in range(3):
            await client.fails()
        assert client.observed.states == ["open"]


async def test_the_stand_ins_account_can_be_reset_and_wrong_plans_are_refused() -> None:
    """A mistyped plan is a 400 and changes nothing; a reset forgets the calls so far."""
    async with client_of() as client, aiohttp.ClientSession(client.address) as control:
        await client.analyser.analyse(TEXT)
        async with control.put("/control/faults", data=b'{"rates": {"earthquake": 1}}') as response:
            assert response.status == 400
        async with control.delete("/control/stats") as response:
            assert response.status == 204
        async with control.get("/healthz") as response:
            assert await response.json() == {"status": "ok"}
        await client.analyser.analyse(TEXT)
        figures = await client.stats()
        assert (figures["calls"], figures["answered"], figures["by_status"]) == (1, 1, {"200": 1})


#: Written by hand after the provider's documentation of chat completions.
DOCUMENTED_REPLY = {
    "id": "a3d1008e-4544-40d4-d075-11527e794e4a",
    "object": "chat.completion",
    "created": 1752854522,
    "model": "grok-4.3",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": json.dumps(
                    {
                        "sentiment": "mixed",
                        "sentiment_score": -0.1,
                        "topics": ["delivery", "refund"],
                        "intent": "request_refund",
                        "urgency": "medium",
                        "summary": "The parcel is late; the customer likes the shop but wants a refund.",
                        "action_needed": True,
                        "confidence": 0.93,
                        "language": "en",
                    }
                ),
                "refusal": None,
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 432,
        "completion_tokens": 79,
        "total_tokens": 811,
        "prompt_tokens_details": {"text_tokens": 432, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 384},
        "completion_tokens_details": {"reasoning_tokens": 300, "audio_tokens": 0},
        "num_sources_used": 0,
        "cost_in_usd_ticks": 10_843_000,
    },
    "system_fingerprint": "fp_3a7881249c",
}


def test_the_documented_reply_is_read() -> None:
    """Completion tokens are total minus prompt, the cost is the billed one."""
    reply = read_reply(json.dumps(DOCUMENTED_REPLY).encode(), cost_per_1k_usd=5)
    assert (reply.insight.sentiment, reply.insight.topics) == ("mixed", ("delivery", "refund"))
    assert (reply.model, reply.usage) == ("grok-4.3", Usage(432, 379, 10_843_000))
