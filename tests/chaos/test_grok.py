"""A fault of the stand-in has really hit calls, or it proves nothing."""

import asyncio
import random

import aiohttp
import pytest

from agents.grok.prompt import RequestTemplate
from streams.dev.standin.server import StandinConfig, serving
from tests.chaos.grok import TROUBLES, Grok

pytestmark = pytest.mark.slow


async def ask(session: aiohttp.ClientSession, number: int) -> None:
    try:
        body = RequestTemplate("grok-x").body(f"where is parcel {number}")
        async with session.post("/v1/chat/completions", data=body, headers={"Authorization": "Bearer key"}) as response:
            await response.read()
    except aiohttp.ClientError:
        pass  # a trouble may be a lost reply


@pytest.mark.parametrize("name", TROUBLES)
async def test_a_fault_lasts_until_enough_calls_have_met_it(name: str) -> None:
    """It waits for late calls too; then all calls succeed again."""
    async with serving(StandinConfig(0, 0)) as address, aiohttp.ClientSession(address) as session:
        grok, asked = Grok(address, trouble_s=(0, 0)), 0
        trouble = asyncio.create_task(grok.trouble(name, random.Random(1)))
        async with asyncio.timeout(60):
            while not trouble.done():
                await asyncio.gather(*(ask(session, asked + n) for n in range(10)))
                asked += 10
        met = await trouble
        assert 20 <= met < asked
        shown = (await asyncio.to_thread(grok.stats))["faults"]
        for n in range(100):
            await ask(session, asked + n)
        assert (await asyncio.to_thread(grok.stats))["faults"] == shown
