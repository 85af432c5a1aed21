"""The feeder against a real HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from schemas.errors import Fatal
from streams.demo import feeder
from streams.demo.feeder import MAX_AT_ONCE, Feeder, retry_after_s
from streams.demo.sample import Request

REQUESTS = [Request(f"c{number}", b'{"id":"c%d","text":"good"}' % number) for number in range(200)]


class Gateway:
    """Answers with the statuses in `answers`, then 202; notes what was accepted and how many came at once."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[int] = []
        self.accepted: list[str] = []
        self.most_at_once = self._at_once = 0
        self.opens_at = 0  # so many requests must be there at once before any is answered
        self._open = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        body = await request.json()
        if self._at_once >= self.opens_at:
            self._open.set()
        await self._open.wait()
        self._at_once -= 1
        status = self.answers.pop(0) if self.answers else 202
        if status == 202:
            self.accepted.append(body["id"])
        return web.Response(status=status, headers={"Retry-After": "0"}, text="why")


@pytest.fixture
async def gateway(unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[Gateway]:
    taken = Gateway()
    application = web.Application()
    application.router.add_post("/api/v1/conversations", taken.take)
    runner = web.AppRunner(application)
    await runner.setup()
    port = unused_tcp_port_factory()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    taken.url = f"http://127.0.0.1:{port}"
    yield taken
    await runner.cleanup()


async def test_every_request_is_posted_once(gateway: Gateway) -> None:
    """Each 202 is told, and MAX_AT_ONCE are under way at once, never more."""
    gateway.opens_at = MAX_AT_ONCE
    told: list[None] = []
    await Feeder(gateway.url, lambda: told.append(None)).post_all(REQUESTS)
    assert sorted(gateway.accepted) == sorted(request.id for request in REQUESTS)
    assert len(told) == len(REQUESTS)
    assert gateway.most_at_once == MAX_AT_ONCE


async def test_a_busy_gateway_is_asked_again(gateway: Gateway) -> None:
    """429 and 503 are obeyed and counted; nothing is lost by them."""
    gateway.answers = [429, 503, 429]
    posting = Feeder(gateway.url, lambda: None)
    await posting.post_all(REQUESTS[:10])
    assert sorted(gateway.accepted) == sorted(request.id for request in REQUESTS[:10])
    assert posting.put_off == 3


async def test_a_refusal_ends_it_with_the_reason(gateway: Gateway) -> None:
    """What the gateway will never accept is not tried for ever."""
    gateway.answers = [422]
    with pytest.raises(Fatal, match="refused") as refused:
        await Feeder(gateway.url, lambda: None).post_all(REQUESTS)
    assert "status 422, why" in refused.value.why


async def test_a_gateway_that_is_gone_ends_it(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """After bounded attempts it says so."""
    monkeypatch.setattr(feeder, "PAUSE_S", 0.0)
    with pytest.raises(Fatal, match="the gateway does not answer"):
        await Feeder(f"http://127.0.0.1:{unused_tcp_port_factory()}", lambda: None).post_all(REQUESTS[:1])


@pytest.mark.parametrize(("header", "expected"), [("7", 7.0), (None, 1.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0)])
def test_retry_after_is_read_in_seconds(header: str | None, expected: float) -> None:
    """The gateway sends whole seconds; anything else gets a default."""
    assert retry_after_s(header) == expected
