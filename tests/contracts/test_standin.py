"""The stand-in over HTTP: its statistics and journal, and calls that hang until the plan is replaced."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import orjson
import pytest

from agents.grok.prompt import RequestTemplate
from streams.dev.standin.completions import check_key
from streams.dev.standin.faults import FaultKind, FaultPlan, Marker
from streams.dev.standin.server import StandinConfig, serving

DEADLINE_S = 10
ANN, BOB = "key-of-ann", "key-of-bob"
PLAN = FaultPlan(markers=tuple(Marker(f"#{kind}#", kind) for kind in FaultKind), slow_body_s=0.01)


class Standin:
    """Callers and the control routes of one stand-in, and its journal."""

    def __init__(self, session: aiohttp.ClientSession, journal: Path) -> None:
        self.session, self._journal = session, journal

    async def ask(self, text: str, key: str = ANN) -> int:
        """Returns the status of a complete reply, or 0 when the reply was lost."""
        headers = {"Authorization": f"Bearer {key}"}
        body = RequestTemplate("grok-x").body(text)
        try:
            async with self.session.post("/v1/chat/completions", data=body, headers=headers) as response:
                await response.read()
                return response.status
        except aiohttp.ClientError:
            return 0

    async def put(self, plan: FaultPlan) -> None:
        async with self.session.put("/control/faults", data=msgspec.json.encode(plan)) as response:
            assert response.status == 200

    async def stats(self) -> dict[str, Any]:
        async with self.session.get("/control/stats") as response:
            figures: dict[str, Any] = await response.json()
            return figures

    async def until(self, **wanted: int) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            while not (figures := await self.stats()).items() >= wanted.items():
                pass
        return figures

    async def entries(self, count: int) -> list[dict[str, Any]]:
        """Returns the journal's lines once there are `count`."""
        async with asyncio.timeout(DEADLINE_S):
            while len(lines := self._journal.read_bytes().splitlines()) < count:
                await self.stats()
        return [orjson.loads(line) for line in lines]


@pytest.fixture
async def standin(tmp_path: Path) -> AsyncIterator[Standin]:
    config = StandinConfig(0, 0, faults=PLAN, journal=tmp_path / "journal")
    async with serving(config) as address, aiohttp.ClientSession(address) as session:
        yield Standin(session, tmp_path / "journal")


@pytest.mark.parametrize("kind", [None, *(kind for kind in FaultKind if kind is not FaultKind.HANG)])
async def test_the_journal_says_answered_exactly_when_a_whole_200_was_read(
    standin: Standin, kind: FaultKind | None
) -> None:
    """Both sides of the connection agree, whatever the fault."""
    status = await standin.ask(f"text #{kind}#")
    (entry,) = await standin.entries(1)
    assert (entry["end"], entry["fault"]) == ("answered" if status == 200 else "failed", kind)
    assert entry["began_s"] <= entry["ended_s"]


async def test_models_are_described_in_the_documented_format() -> None:
    """One by its name, or all; a wrong key and an unknown model are refused as for a call."""
    config = StandinConfig(0, 0, ANN, ("grok-x",))
    model = {"id": "grok-x", "object": "model", "owned_by": "xai"}
    async with serving(config) as address, aiohttp.ClientSession(address) as session:
        for path, key, status, said in (
            ("grok-x", ANN, 200, model),
            ("grok-y", ANN, 404, {"error": "The model grok-y does not exist."}),
            ("grok-x", BOB, 400, {"error": "Incorrect API key provided."}),
        ):
            async with session.get(f"/v1/models/{path}", headers={"Authorization": f"Bearer {key}"}) as response:
                body = await response.json()
                assert (response.status, body | said) == (status, body)
        async with session.get("/v1/models", headers={"Authorization": f"Bearer {ANN}"}) as response:
            body = await response.json()
            assert (body["object"], [listed | model for listed in body["data"]]) == ("list", body["data"])
        async with session.get("/control/stats") as response:
            assert (await response.json())["by_status"] == {}


async def test_a_hanging_call_keeps_hanging_while_the_plan_says_so(standin: Standin) -> None:
    """A plan with other faults that still marks the text changes nothing for it."""
    marker = Marker("marked", FaultKind.HANG)
    await standin.put(FaultPlan(markers=(marker,), hang_s=3600))
    asked = asyncio.create_task(standin.ask("a marked text"))
    await standin.until(hanging=1)
    await standin.put(FaultPlan(rates={FaultKind.HTTP_500: 1}, markers=(marker,), hang_s=3600))
    assert (await standin.stats())["hanging"] == 1
    await standin.put(FaultPlan())
    async with asyncio.timeout(DEADLINE_S):
        assert await asked == 200


async def test_what_hangs_is_let_go_by_another_plan(standin: Standin) -> None:
    """With a valid answer, even while it hangs for an hour; calls of a later plan hang again."""
    hanging = FaultPlan(rates={FaultKind.HANG: 1}, hang_s=3600)
    await standin.put(hanging)
    asked = [asyncio.create_task(standin.ask(f"text {n}", ANN if n else BOB)) for n in range(3)]
    figures = await standin.until(hanging=3)
    callers = {check_key(f"Bearer {key}", None): count for key, count in ((ANN, 2), (BOB, 1))}
    assert figures["in_flight_by_caller"] == callers
    await standin.put(FaultPlan())
    async with asyncio.timeout(DEADLINE_S):
        assert await asyncio.gather(*asked) == [200, 200, 200]
    assert {(entry["end"], entry["fault"]) for entry in await standin.entries(3)} == {("answered", "hang")}
    figures = await standin.stats()
    assert (figures["hanging"], figures["in_flight_by_caller"]) == (0, {})


async def test_a_caller_that_leaves_is_cut_off_in_the_journal(standin: Standin) -> None:
    """The line names the caller, never the key."""
    await standin.put(FaultPlan(rates={FaultKind.HANG: 1}, hang_s=3600))
    asked = asyncio.create_task(standin.ask("text"))
    await standin.until(hanging=1)
    asked.cancel()
    (entry,) = await standin.entries(1)
    assert (entry["end"], entry["fault"], entry["caller"]) == ("cut_off", "hang", check_key(f"Bearer {ANN}", None))
    assert ANN not in str(entry)
    await standin.until(hanging=0, in_flight=0, cut_off=1)


async def test_a_plan_that_is_refused_lets_nothing_go(standin: Standin) -> None:
    """An invalid plan changes nothing."""
    await standin.put(FaultPlan(rates={FaultKind.HANG: 1}, hang_s=3600))
    asked = asyncio.create_task(standin.ask("text"))
    await standin.until(hanging=1)
    async with standin.session.put("/control/faults", data=b"{") as response:
        assert response.status == 400
    assert (await standin.stats())["hanging"] == 1
    asked.cancel()
