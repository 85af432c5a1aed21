"""The Grok client against the stand-in over real HTTP: every fault, the breaker, and the counts of both sides."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
from aiohttp import web
from yarl import URL

from agents.analyser import NOTHING
from agents.grok.client import MAX_REPLY_BYTES, GrokAnalyser
from agents.grok.reply import read_reply
from agents.limits.breaker import CircuitBreaker
from schemas.call import UnansweredCall
from schemas.errors import Fatal, InsightsError, Retryable, Unprocessable
from schemas.insight import Usage
from streams.dev.local.ports import free_port
from streams.dev.standin.faults import FaultKind, FaultPlan, Marker
from streams.dev.standin.server import StandinConfig, serving
from tests.fakes.analysis import at_once
from tests.support.servers import UNKNOWN_HOST, listening, tls_server

TEXT = "user: my parcel is late, I want a refund"


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
GOOD_BODY = json.dumps(DOCUMENTED_REPLY).encode()
CLOUDFLARE = b"<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(status: int, body: bytes, content_type: str = "application/json") -> Handler:
    """A server that gives each request that answer."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=content_type)

    return handler


class Observed:
    """Records what the client reports about its calls."""

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
    """A client, what its observer received, and the stand-in's control routes."""

    def __init__(self, address: str, **settings: Any) -> None:
        self.observed, self.clock, self.address = Observed(), Clock(), address
        self.unanswered: list[UnansweredCall] = []
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
            await self.analyser.analyse(text, self.unanswered.append)
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
async def client_of_handler(handler: Handler, **settings: Any) -> AsyncIterator[Client]:
    """For replies that the stand-in does not make."""
    application = web.Application()
    application.router.add_route("*", "/v1/{path:.+}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with started(Client(f"http://127.0.0.1:{runner.addresses[0][1]}", **settings)) as client:
            yield client
    finally:
        await runner.cleanup()


def always(kind: FaultKind, **plan: Any) -> FaultPlan:
    return FaultPlan(rates={kind: 1.0}, **plan)


async def test_the_stand_ins_answer_passes_the_check() -> None:
    """Both sides agree on its cost."""
    async with client_of() as client:
        answer = await client.analyser.analyse(TEXT)
        assert (answer.model, answer.insight.intent) == ("grok-x", "request_refund")
        assert client.observed.usages == [answer.usage]
        assert (await client.stats())["billed_usd_ticks"] == answer.usage.cost_usd_ticks > 0


@pytest.mark.parametrize(
    ("kind", "error", "failure", "paid"),
    [
        (FaultKind.HTTP_429, Retryable, ("rate_limited", False), []),
        (FaultKind.HTTP_500, Retryable, ("server", False), []),
        (FaultKind.RESET, Retryable, ("connection", True), ["ambiguous"]),
        (FaultKind.RESET_MID_BODY, Retryable, ("connection", True), ["ambiguous"]),
        (FaultKind.REFUSAL, Unprocessable, ("client", False), ["refused"]),
        (FaultKind.VIOLATION_403, Unprocessable, ("client", False), ["refused"]),
    ],
)
async def test_each_fault_has_its_error(
    kind: FaultKind, error: type[Exception], failure: tuple[str, bool], paid: list[str]
) -> None:
    """One call each: whether to try again is the caller's decision. What may have been billed is reported."""
    async with client_of(always(kind)) as client:
        assert isinstance(await client.fails(), error)
        assert client.observed.failures == [failure]
        assert [call.outcome for call in client.unanswered] == paid
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


async def test_a_refused_connection_is_not_billed() -> None:
    """The request was never sent."""
    async with serving(StandinConfig()) as address:
        pass
    async with started(Client(address)) as client:
        assert isinstance(await client.fails(), Retryable)
        assert client.observed.failures == [("connection", False)]


@pytest.mark.parametrize("kind", [FaultKind.BAD_JSON, FaultKind.BAD_SCHEMA])
async def test_a_bad_answer_is_asked_for_once_more(kind: FaultKind) -> None:
    """Both calls were billed, and what was reported and the answer say so; two bad ones end the text."""
    async with client_of(FaultPlan(markers=(Marker("#once", kind, times=1), Marker("#always", kind)))) as client:
        answer = await client.analyser.analyse("#once", client.unanswered.append)
        assert client.observed.failures == [("bad_answer", False)]
        [bad] = client.unanswered
        assert (bad.outcome, bad.model) == ("bad_answer", "grok-x")
        billed = (await client.stats())["billed_usd_ticks"]
        assert billed == bad.usage.cost_usd_ticks + answer.usage.cost_usd_ticks
        error = await client.fails("#always")
        assert [call.outcome for call in client.unanswered] == ["bad_answer"] * 3
        assert (await client.stats())["billed_usd_ticks"] > billed
        assert isinstance(error, Unprocessable)
        assert (error.reason, (await client.stats())["calls"]) == ("bad_answer", 4)


async def test_each_call_asks_whether_it_may_be_paid_for() -> None:
    """The second one asks too, after a bad answer: the partition may have been revoked meanwhile."""
    allowed = Allowance(2)
    plan = FaultPlan(rates={FaultKind.BAD_SCHEMA: 1})
    async with client_of(plan, wait_allowed=allowed) as client:
        assert str(await client.fails()) == "taken away"
        assert (allowed.asked, (await client.stats())["calls"]) == (3, 1)


async def test_a_call_that_may_not_be_paid_for_any_more_is_not_sent() -> None:
    """It asks again once the connection is open, since connecting may have taken long. Nothing reaches Grok, the
    breaker is unchanged, and no reply is lost."""
    allowed = Allowance(1)
    async with client_of(wait_allowed=allowed, breaker=CircuitBreaker(errors=1, cooldown_s=10)) as client:
        assert str(await client.fails()) == "taken away"
        assert (allowed.asked, (await client.stats())["calls"]) == (2, 0)
        assert (client.observed.states, client.observed.failures) == ([], [])
        allowed.times = 4
        assert (await client.analyser.analyse(TEXT)).usage.completion_tokens


async def test_a_call_waits_for_its_turn_with_the_connection_open() -> None:
    """The group may renew the worker's lease soon."""
    allowed = Allowance(1, waits=True)
    async with client_of(wait_allowed=allowed) as client:
        answer = asyncio.ensure_future(client.analyser.analyse(TEXT))
        await allowed.is_waited_for.wait()
        assert (await client.stats())["calls"] == 0
        allowed.again.set()
        await answer
        assert (await client.stats())["calls"] == 1


class Allowance:
    """Allows this many requests; after that it refuses, or waits until `again` is set."""

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
    """It has no cost, and is not an error."""
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
    """The stand-in sees the client disconnect, the client counts the call as ambiguous: both counts agree."""
    async with client_of(latency_s=60) as client:
        task = asyncio.create_task(client.analyser.analyse(TEXT, client.unanswered.append))
        async with asyncio.timeout(10):
            while (await client.stats())["in_flight"] == 0:
                pass
            task.cancel()
            await asyncio.wait({task})
            while (await client.stats())["cut_off"] == 0:
                pass
        assert task.cancelled()
        assert client.observed.failures == [("cancelled", True)]
        assert [call.outcome for call in client.unanswered] == ["ambiguous"]


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
    """Whatever its status, it makes no dead letter, stops no worker and blames no key."""
    for status in (200, 403, 404, 503):
        async with client_of_handler(answering(status, CLOUDFLARE, "text/html")) as client:
            for _ in range(5):
                error = await client.fails()
                assert isinstance(error, Retryable)
                assert "XAI_API_KEY" not in str(error)
            assert client.observed.states == ["open"]


@pytest.mark.parametrize("status", [409, 425, 529])
async def test_statuses_that_pass_can_be_tried_again(status: int) -> None:
    """As the provider's own libraries do."""
    async with client_of_handler(answering(status, b'{"error": "try again"}')) as client:
        assert isinstance(await client.fails(), Retryable)


async def test_an_outage_is_logged_once_and_so_is_its_end() -> None:
    """With class, status and the provider's words, in log and health; probes that fail are the same outage."""
    replies = [answering(503, b'{"error": "overloaded, key-for-tests"}')] * 6 + [answering(200, GOOD_BODY)] * 9

    async def handler(request: web.Request) -> web.StreamResponse:
        return await replies.pop(0)(request)

    async with client_of_handler(handler) as client:
        with structlog.testing.capture_logs() as logged:
            for _ in range(5):
                await client.analyser.check_calls()
                await client.fails()
            client.clock.now_s += 10
            await client.fails()
            with pytest.raises(Retryable) as unhealthy:
                await client.analyser.check_calls()
            client.clock.now_s += 10
            await client.analyser.analyse(TEXT)
        await client.analyser.check_calls()
    paused, resumed = logged
    assert (paused["event"], paused["error_class"], paused["status"]) == ("grok_calls_paused", "server", 503)
    assert (paused["why"], paused["log_level"]) == ("overloaded, ***", "warning")
    assert (resumed["event"], resumed["paused_s"], resumed["log_level"]) == ("grok_calls_resumed", 20.0, "warning")
    expected = "127.0.0.1 fails (server, status 503): overloaded, ***; calls have paused for 10 s"
    assert str(unhealthy.value) == expected


async def test_an_outage_never_quotes_the_text() -> None:
    """A body may echo what was sent."""

    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"error": f"cannot do {(await request.json())['messages'][1]['content']}"}, status=500)

    async with client_of_handler(echo) as client:
        with structlog.testing.capture_logs() as logged:
            for _ in range(5):
                await client.fails()
        assert [entry["why"] for entry in logged] == ["the provider answered with status 500"]


async def test_calls_in_flight_and_the_oldest_ones_age_are_known() -> None:
    """Also when calls end in another order than they began."""
    release = {text: asyncio.Event() for text in ("first", "second")}

    async def slow(request: web.Request) -> web.Response:
        await release[(await request.json())["messages"][1]["content"]].wait()
        return web.Response(body=GOOD_BODY, content_type="application/json")

    async with client_of_handler(slow) as client:
        analyser, calls = client.analyser, {}
        assert (analyser.calls_in_flight, analyser.oldest_call_age_s) == (0, 0)
        for text in release:
            calls[text] = asyncio.create_task(analyser.analyse(text))
            while analyser.calls_in_flight < len(calls):
                await asyncio.sleep(0)
            client.clock.now_s += 5
        assert (analyser.calls_in_flight, analyser.oldest_call_age_s) == (2, 10)
        release["first"].set()
        await calls["first"]
        assert (analyser.calls_in_flight, analyser.oldest_call_age_s) == (1, 5)
        release["second"].set()
        await calls["second"]
        assert (analyser.calls_in_flight, analyser.oldest_call_age_s) == (0, 0)


@pytest.mark.parametrize(
    "content",
    [
        lambda answer: f"```json\n{answer}\n```",
        lambda answer: [{"type": "text", "text": answer}],
        lambda answer: "\ufeff" + answer,
        lambda answer: answer.replace("0.93", '"0.93"').replace("mixed", "Mixed"),
    ],
    ids=["code fence", "parts", "byte order mark", "other spellings"],
)
async def test_an_answer_in_another_wrapping_is_paid_for_once(content: Callable[[str], Any]) -> None:
    """As compatible servers send it."""
    body = json.loads(GOOD_BODY)
    message = body["choices"][0]["message"]
    message["content"] = content(message["content"])
    asked = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(body)

    async with client_of_handler(handler) as client:
        insight = (await client.analyser.analyse(TEXT)).insight
        assert (insight.sentiment, insight.confidence, asked) == ("mixed", 0.93, 1)


async def test_key_and_model_are_checked_without_a_call() -> None:
    """A wrong one is named with the provider's words, and checked again once a minute."""
    async with client_of(api_key="key-for-tests", models=("grok-x",)) as client:
        await client.analyser.check()
        assert (await client.stats())["calls"] == 0
    for settings, expected in (
        ({"api_key": "another"}, "check XAI_API_KEY: {} answered with status 400: Incorrect API key provided."),
        ({"models": ("grok-y",)}, "check GROK_MODEL: {} answered with status 404: The model grok-x does not exist."),
    ):
        async with client_of(**settings) as client:
            with pytest.raises(Retryable) as raised:
                await client.analyser.check()
            expected = expected.format(URL(client.address).authority)
            assert (str(raised.value), raised.value.retry_after_s) == (expected, 60)


@pytest.mark.parametrize(
    ("one", "listed", "expected"),
    [
        ((200, b'{"id": "grok-x"}'), (404, b""), None),
        ((404, b"404 page not found"), (200, b'{"object": "list", "data": [{"id": "grok-x"}]}'), None),
        ((404, b'{"error": "no such model"}'), (200, b'{"data": [{"id": "grok-y"}]}'), "GROK_MODEL.*: no such model"),
        ((404, b"404 page not found"), (404, b"404 page not found"), "GROK_BASE_URL.* 404: 404 page not found"),
        ((404, b""), (200, b"surprise"), "GROK_MODEL"),
        ((401, b'{"error": {"message": "Invalid key sk-ab***yz"}}'), (401, b""), r"XAI_API_KEY.*: Invalid key \*{3}$"),
        ((403, b'{"error": "The key may not read models"}'), (403, b""), "XAI_API_KEY.* 403: The key may not"),
        ((405, b""), (405, b""), "GROK_BASE_URL.* 405$"),
        ((302, b""), (302, b""), "GROK_BASE_URL.* 302$"),
        ((503, b"overloaded"), (503, b""), r"^127\.0\.0\.1:\d+ answered with status 503: overloaded"),
        (
            (403, b"<title>Attention Required!</title>"),
            (403, b""),
            r"^a page came from 127\.0\.0\.1:\d+ with status 403: Attention Required!; check GROK_B",
        ),
    ],
)
async def test_compatible_servers_are_checked_too(
    one: tuple[int, bytes], listed: tuple[int, bytes], expected: str | None
) -> None:
    """Some have no route for a single model; errors come in many forms."""

    async def handler(request: web.Request) -> web.Response:
        status, body = one if request.path == "/v1/models/grok-x" else listed
        return web.Response(status=status, body=body)

    async with client_of_handler(handler) as client:
        if expected is None:
            await client.analyser.check()
            return
        with pytest.raises(Retryable, match=expected) as raised:
            await client.analyser.check()
        assert raised.value.retry_after_s == (None if expected.startswith("^") else 60)


async def unreachable(base_url: str, **settings: Any) -> str:
    """Why the check of a provider that cannot be reached fails."""
    async with started(Client("", base_url=base_url, **settings)) as client:
        with pytest.raises(Retryable) as raised:
            await client.analyser.check()
        return str(raised.value)


async def test_a_provider_that_cannot_be_reached_is_named_with_the_cause(tmp_path: Path) -> None:
    """Name, network, TLS or time."""
    closed = f"127.0.0.1:{free_port()}"
    assert await unreachable(f"http://{closed}/v1") == f"no connection to {closed}: Connection refused"
    assert (await unreachable(f"https://{UNKNOWN_HOST}/v1")).startswith(f"unknown host {UNKNOWN_HOST}:443: ")
    async with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as plain:
        assert await unreachable(f"https://{plain}/v1") == f"TLS with {plain} failed: that port does not speak TLS"
    async with listening(b"", tls_server(tmp_path)) as unknown:
        why = await unreachable(f"https://{unknown}/v1")
        assert why.startswith(f"the certificate of {unknown} cannot be verified: self")
    async with listening(None) as silent:
        assert await unreachable(f"http://{silent}/v1", timeout_s=0.3) == f"no answer from {silent} in time"


async def test_a_proxy_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the proxy's address that is wrong, not the provider's; its password is not shown."""
    closed = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@{closed}")
    monkeypatch.delenv("http_proxy", raising=False)
    why = await unreachable("http://grok.invalid/v1")
    assert why == f"no connection to the proxy {closed}: Connection refused"


async def test_a_model_with_a_slash_in_its_name_is_checked() -> None:
    """As they are named by compatible servers."""
    async with client_of(models=("maker/model",), model="maker/model") as client:
        await client.analyser.check()


class Proxy:
    """A little HTTP proxy: forwards plain requests to one server, and refuses tunnels with 407."""

    def __init__(self, target: str) -> None:
        self._target = URL(target)
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            request_line, _, headers = head.partition(b"\r\n")
            method, target, version = request_line.decode().split()
            self.requests.append(f"{method} {target}")
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            length = next(
                (int(line[16:]) for line in headers.split(b"\r\n") if line.lower().startswith(b"content-length: ")), 0
            )
            body = await reader.readexactly(length)
            to_reader, to_writer = await asyncio.open_connection(self._target.host, self._target.port)
            path = f"{method} {URL(target).raw_path} {version}\r\nConnection: close\r\n".encode()
            to_writer.write(path + headers + body)
            writer.write(await to_reader.read())
            to_writer.close()
        finally:
            writer.close()


@asynccontextmanager
async def proxying(monkeypatch: pytest.MonkeyPatch, target: str) -> AsyncIterator[Proxy]:
    """The environment names the proxy."""
    proxy = Proxy(target)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for name in ("http_proxy", "https_proxy", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
        yield proxy


async def test_calls_go_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain address by HTTP_PROXY: only the proxy can resolve this name. The check goes the same way."""
    async with (
        serving(StandinConfig(0, 0)) as address,
        proxying(monkeypatch, address) as proxy,
        started(Client(address, base_url="http://grok.invalid/v1")) as client,
    ):
        await client.analyser.check()
        await client.analyser.analyse(TEXT)
        assert (await client.stats())["calls"] == 1
    assert proxy.requests == [
        "GET http://grok.invalid/v1/models/grok-x",
        "POST http://grok.invalid/v1/chat/completions",
    ]


async def test_calls_to_a_secure_address_are_tunnelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """By HTTPS_PROXY; a proxy that refuses was never sent a call that could be billed."""
    async with (
        proxying(monkeypatch, "http://127.0.0.1:9") as proxy,
        started(Client("", base_url="https://grok.invalid/v1")) as client,
    ):
        error = await client.fails()
        assert isinstance(error, Retryable)
        assert "proxy refused the connection with status 407" in str(error)
        assert client.observed.failures == [("connection", False)]
    assert proxy.requests == ["CONNECT grok.invalid:443"]


@pytest.mark.parametrize(("host", "no_proxy"), [("grok.invalid", "other.invalid, grok.invalid"), ("127.0.0.1", "")])
async def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str) -> None:
    """Requests to loopback never go through a proxy, whose loopback is another one."""
    async with proxying(monkeypatch, "http://127.0.0.1:9") as proxy:
        monkeypatch.setenv("NO_PROXY", no_proxy)
        async with started(Client("", base_url=f"http://{host}:9/v1")) as client:
            assert isinstance(await client.fails(), Retryable)
    assert proxy.requests == []


async def test_a_proxy_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is named, not its address, which may hold a password."""
    async with proxying(monkeypatch, "http://127.0.0.1:9"):
        monkeypatch.setenv("HTTPS_PROXY", "socks5://user:secret@127.0.0.1:9")
        with pytest.raises(Fatal) as raised:
            await Client("", base_url="https://grok.invalid/v1").analyser.start()
        assert "HTTPS_PROXY" in raised.value.what
        assert "secret" not in repr(vars(raised.value))


async def test_the_stand_ins_account_can_be_reset_and_wrong_plans_are_refused() -> None:
    """An invalid plan is a 400 and changes nothing; a reset clears the counts."""
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


def test_the_documented_reply_is_read() -> None:
    """Completion tokens are total minus prompt, the cost is the billed one."""
    reply = read_reply(json.dumps(DOCUMENTED_REPLY).encode(), cost_per_1k_usd=5)
    assert (reply.insight.sentiment, reply.insight.topics) == ("mixed", ("delivery", "refund"))
    assert (reply.model, reply.usage) == ("grok-4.3", Usage(432, 379, 10_843_000))
