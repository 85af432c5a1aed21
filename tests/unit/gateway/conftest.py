"""A gateway on fake parts, served on a real socket."""

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from streams.gateway.server import build_application
from tests.fakes.gateway_parts import FakeParts


@pytest.fixture
def fakes() -> FakeParts:
    return FakeParts()


@pytest.fixture
async def client(fakes: FakeParts) -> AsyncIterator[TestClient]:
    server = TestServer(build_application(fakes.parts), access_log=None, auto_decompress=False)
    async with TestClient(server) as client:
        yield client
