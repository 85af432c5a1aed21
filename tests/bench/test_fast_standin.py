"""The benchmark's stand-in answers and counts like `grok-insights standin`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from streams.dev.standin.server import StandinConfig, serving
from tests.bench.fast_standin import Standin, serve

_KEY = {"Authorization": "Bearer test"}
_QUESTION = {
    "model": "standin",
    "messages": [{"role": "system", "content": "Analyse."}, {"role": "user", "content": "My parcel is lost, help me"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "insight", "strict": True, "schema": {}}},
}


@asynccontextmanager
async def _both() -> AsyncIterator[tuple[aiohttp.ClientSession, list[str]]]:
    """A client, and the addresses of the real stand-in and of the fast one."""
    async with (
        aiohttp.ClientSession() as client,
        serving(StandinConfig(latency_min_s=0, latency_max_s=0)) as real,
        await serve(Standin(), 0) as server,
    ):
        yield client, [real, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"]


def _shape(value: Any) -> Any:
    """Names and types; of a list only the first element."""
    if isinstance(value, dict):
        return {name: _shape(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_shape(child) for child in value[:1]]
    return type(value)


async def test_replies_have_the_same_shape() -> None:
    async with _both() as (client, addresses):
        shapes, answers = [], []
        for address in addresses:
            async with client.post(f"{address}/v1/chat/completions", json=_QUESTION, headers=_KEY) as response:
                assert response.status == 200
                reply = await response.json()
            shapes.append(_shape(reply))
            answers.append(json.loads(reply["choices"][0]["message"]["content"]))
    assert shapes[0] == shapes[1]
    assert _shape(answers[0]).keys() == _shape(answers[1]).keys()


@pytest.mark.parametrize(
    ("body", "headers"),
    [(json.dumps(_QUESTION), {}), ("no JSON", _KEY), (json.dumps({"model": "standin"}), _KEY)],
    ids=["no key", "not JSON", "no messages"],
)
async def test_refuses_what_the_real_one_refuses(body: str, headers: dict[str, str]) -> None:
    async with _both() as (client, addresses):
        for address in addresses:
            async with client.post(f"{address}/v1/chat/completions", data=body, headers=headers) as response:
                assert 400 <= response.status < 500


async def test_describes_a_model_as_the_real_one_does() -> None:
    """Workers ask before they start."""
    async with _both() as (client, addresses):
        ids = []
        for address in addresses:
            async with client.get(f"{address}/v1/models/standin", headers=_KEY) as response:
                assert response.status == 200
                ids.append((await response.json(content_type=None))["id"])
    assert ids == ["standin", "standin"]


async def test_counts_calls_and_distinct_texts() -> None:
    async with _both() as (client, addresses):
        counts = []
        for address in addresses:
            for text in ("first text", "second text", "first text"):
                messages = [_QUESTION["messages"][0], {"role": "user", "content": text}]  # type: ignore[index]
                question = _QUESTION | {"messages": messages}
                async with client.post(f"{address}/v1/chat/completions", json=question, headers=_KEY) as response:
                    await response.read()
            async with client.get(f"{address}/control/stats") as response:
                stats = await response.json(content_type=None)
            counts.append({name: stats[name] for name in ("calls", "distinct_texts", "in_flight")})
    assert counts == [{"calls": 3, "distinct_texts": 2, "in_flight": 0}] * 2
