"""A gateway with fake dependencies on a real socket."""

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from streams.gateway.app import build_application
from tests.fakes.gateway import FakeDependencies


@pytest.fixture
def fakes() -> FakeDependencies:
    return FakeDependencies()


@pytest.fixture
async def client(fakes: FakeDependencies) -> AsyncIterator[TestClient]:
    server = TestServer(build_application(fakes.dependencies), access_log=None, auto_decompress=False)
    async with TestClient(server) as client:
        yield client
