"""Every analyser keeps the same promises: the fake, Grok's client on the stand-in, and the local one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from agents.analyser import Analyser, CallObserver
from agents.grok.client import GrokAnalyser
from agents.limits.breaker import CircuitBreaker
from agents.local.analyser import LOCAL_MODEL, LocalAnalyser
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, Retryable, Unprocessable
from schemas.insight import MAX_SUMMARY_CHARS, MAX_TOPICS, Answer, Usage
from streams.dev.standin.faults import FaultKind, FaultPlan, Marker
from streams.dev.standin.server import StandinConfig, serving
from tests.fakes.analysis import FakeAnalyser, at_once

TEXT = "user: my parcel is late, I want a refund"
#: The provider is down for the first call with this text, and refuses the second one.
FAILS = "#fails"
PLAN = FaultPlan(markers=(Marker(FAILS, FaultKind.HTTP_500, times=1), Marker(FAILS, FaultKind.REFUSAL, times=1)))
KEY = "key-for-tests"


class Deaf:
    """Ignores all calls."""

    def call_succeeded(self, latency_s: float, usage: Usage) -> None: ...

    def call_failed(self, error_class: str, latency_s: float, **_: Any) -> None: ...

    def breaker_changed(self, state: str) -> None: ...


@asynccontextmanager
async def grok(api_key: str = KEY) -> AsyncIterator[GrokAnalyser]:
    """The client, on a stand-in that knows KEY."""
    async with serving(StandinConfig(0, 0, KEY, (), PLAN)) as address:
        client = GrokAnalyser(
            base_url=f"{address}/v1",
            api_key=api_key,
            model="grok-x",
            timeout_s=10,
            breaker=CircuitBreaker(errors=5, cooldown_s=10),
            observer=cast(CallObserver, Deaf()),
            max_connections=8,
            wait_allowed=at_once,
        )
        await client.start()
        yield client
        await client.stop()


@pytest.fixture(params=["fake", "grok", "local"])
async def analyser(request: pytest.FixtureRequest) -> AsyncIterator[Analyser]:
    async with grok() as client:
        yield {"fake": FakeAnalyser(), "grok": client, "local": LocalAnalyser()}[request.param]


@pytest.fixture(params=["fake", "grok"])
async def failing(request: pytest.FixtureRequest) -> AsyncIterator[Analyser]:
    fake = FakeAnalyser([Retryable("down"), Unprocessable(DeadLetterReason.REFUSED, "no")])
    async with grok() as client:
        yield fake if request.param == "fake" else client


@pytest.fixture(params=["fake", "grok"])
async def locked_out(request: pytest.FixtureRequest) -> AsyncIterator[Analyser]:
    async with grok(api_key="another") as client:
        yield FakeAnalyser([Fatal("the key is wrong")] * 2) if request.param == "fake" else client


async def test_an_answer_can_be_kept_and_shown(analyser: Analyser) -> None:
    """It fits the row and the event, and comes back from the table `answers` as it was."""
    answer = await analyser.analyse(TEXT)
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Answer) == answer
    assert answer.analysed_at.utcoffset() is not None
    assert (len(answer.insight.topics) <= MAX_TOPICS, bool(answer.model)) == (True, True)
    assert 0 < len(answer.insight.summary) <= MAX_SUMMARY_CHARS


async def test_only_a_provider_is_paid(analyser: Analyser) -> None:
    """Rows add up to the bill; a free answer must not look like one of Grok's."""
    answer = await analyser.analyse(TEXT)
    is_free = answer.usage == Usage()
    assert is_free == (answer.model == LOCAL_MODEL) == (not analyser.is_paid)


async def test_the_version_stays_the_same(analyser: Analyser) -> None:
    """Before and after calls, so that an answer is found under the key under which it was asked for."""
    before = analyser.version
    await analyser.analyse(TEXT)
    assert analyser.version == before != ""


async def test_many_texts_can_be_asked_about_at_once(analyser: Analyser) -> None:
    """MAX_IN_FLIGHT records share one analyser."""
    answers = await asyncio.gather(*(analyser.analyse(f"{TEXT} number {n}") for n in range(20)))
    assert [type(answer) for answer in answers] == [Answer] * 20


async def test_a_failure_says_what_to_do_and_passes(failing: Analyser) -> None:
    """An outage is retried later, a refused text becomes a dead letter with a known reason; then all works again."""
    with pytest.raises(Retryable):
        await failing.analyse(FAILS)
    with pytest.raises(Unprocessable) as refused:
        await failing.analyse(FAILS)
    assert DeadLetterReason(refused.value.reason) is DeadLetterReason.REFUSED
    assert isinstance(await failing.analyse(FAILS), Answer)


async def test_a_wrong_key_stops_the_worker(locked_out: Analyser) -> None:
    """Again at each call: no text can change that."""
    for _ in range(2):
        with pytest.raises(Fatal):
            await locked_out.analyse(TEXT)
