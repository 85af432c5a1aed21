"""The fixture of the tests of pump and watch."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.pipeline.pump_rig import Rig


@pytest.fixture
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    rig = Rig(getattr(request, "param", 10))
    running = asyncio.create_task(rig.pump.run(rig.stream))  # type: ignore[arg-type]
    yield rig
    rig.gate.set()
    running.cancel()
    await asyncio.wait({running})
