"""POST /api/v1/conversations: what is accepted, and every reason for a refusal."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from yarl import URL

from agents.decode import Record, decode
from schemas.conversation import MAX_VALUE_BYTES, Repair
from streams.gateway.publisher import BrokerUnavailable
from streams.kafka.producer import Outgoing
from tests.fakes.gateway import FakeDependencies, insight_record
from tests.support.factories import a_record

PATH = "/api/v1/conversations"
JSON = {"Content-Type": "application/json"}
GOOD = b'{"text": "my card was charged twice"}'


async def test_accepted_means_published(client: TestClient, fakes: FakeDependencies) -> None:
    """The 202 has the id and the location of the result, and the record is in the topic under that id."""
    async with client.post(PATH, data=b'{"id": "c/1 \xc3\xa4", "text": "hello there"}', headers=JSON) as response:
        assert response.status == 202
        assert await response.json() == {"id": "c/1 \u00e4", "status": "accepted"}
        location = URL(response.headers["Location"], encoded=True)
    assert [json.loads(record.value)["id"] for record in fakes.publisher.records] == ["c/1 \u00e4"]
    fakes.reader.rows = [("default", insight_record("c/1 \u00e4"))]
    async with client.get(location) as response:
        assert (response.status, (await response.json())["id"]) == (200, "c/1 \u00e4")


async def test_an_id_is_made_where_none_is_sent(client: TestClient, fakes: FakeDependencies) -> None:
    """A uuid4 as hex, the same in the answer, the value and the event's id."""
    async with client.post(PATH, data=GOOD, headers=JSON) as response:
        made = (await response.json())["id"]
    assert re.fullmatch("[0-9a-f]{12}4[0-9a-f]{19}", made)
    [record] = fakes.publisher.records
    assert json.loads(record.value)["id"] == made
    assert dict(record.headers)["ce_id"] == made.encode()


async def test_answers_are_not_stored_and_not_sniffed(client: TestClient) -> None:
    """Answers of the API carry no-store and nosniff, and name no versions."""
    async with client.post(PATH, data=GOOD, headers=JSON) as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Server"] == "grok-insights"


@pytest.mark.parametrize("text", [rb"my card \ud83d", rb"my card \u0000"])
async def test_half_an_emoji_and_nul_are_repaired(client: TestClient, fakes: FakeDependencies, text: bytes) -> None:
    """Clients that cut texts cut emoji in two; what cannot be stored is replaced, and the worker marks the row."""
    async with client.post(PATH, data=b'{"id": 7, "text": "' + text + b'"}', headers=JSON) as response:
        assert await response.json() == {"id": "7", "status": "accepted"}
    [sent] = fakes.publisher.records
    assert json.loads(sent.value) == {"id": "7", "text": "my card \ufffd"}
    assert a_decoded(sent).repairs == (Repair.CHARACTERS_REPLACED,)


async def test_what_needs_no_repair_is_not_marked(client: TestClient, fakes: FakeDependencies) -> None:
    """Whatever characters it has."""
    async with client.post(PATH, data=b'{"id": "7", "text": "my card \\ud83d\\ude21"}', headers=JSON) as response:
        assert response.status == 202
    assert a_decoded(fakes.publisher.records[0]).repairs == ()


def a_decoded(sent: Outgoing) -> Record:
    record = Record(a_record(sent.value, headers=sent.headers), was_rehomed=False)
    decode(record)
    return record


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "application/json;charset=UTF-8", "application/cloudevents+json"],
)
async def test_json_types_are_taken(client: TestClient, content_type: str) -> None:
    """application/json and its +json relatives, in UTF-8."""
    async with client.post(PATH, data=GOOD, headers={"Content-Type": content_type}) as response:
        assert response.status == 202


BAD_BODIES = {
    "not json": (b"{oops", 400, "not_json", None),
    "empty": (b"", 400, "not_json", None),
    "not utf-8": (b'{"text": "\xff\xfe"}', 400, "not_utf8", None),
    "too large": (b'{"text": "' + b"a" * MAX_VALUE_BYTES + b'"}', 413, "too_large", None),
    "wrong type": (b'{"text": 5}', 422, "invalid_value", "text"),
    "not an object": (b'["text"]', 422, "invalid_value", None),
    "unknown field": (b'{"text": "hello", "colour": 1}', 422, "unknown_field", "colour"),
    "nothing to analyse": (b'{"id": "a"}', 422, "missing_field", "text"),
    "empty text": (b'{"text": " \\n "}', 422, "empty_text", "text"),
    "deep nesting": (
        b'{"text": "a", "metadata": {"a": ' + b"[" * 100 + b"]" * 100 + b"}}",
        400,
        "too_deep",
        "metadata",
    ),
    "deepest nesting": (b'{"text": "a", "metadata": {"a": ' + b"[" * 100_000, 400, "too_deep", None),
    "both": (b'{"text": "a", "messages": [{"role": "u", "text": "b"}]}', 422, "text_and_messages", "messages"),
    "long text": (b'{"text": "' + b"a" * 100_001 + b'"}', 422, "too_long", "text"),
    "bad time": (b'{"text": "a", "occurred_at": "2026-01-31T12:00:00"}', 422, "invalid_value", "occurred_at"),
}


@pytest.mark.parametrize(("body", "status", "code", "field"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_bad_body_is_a_problem_and_affects_no_other_request(
    client: TestClient, fakes: FakeDependencies, body: bytes, status: int, code: str, field: str | None
) -> None:
    """The status, a stable code, the field where there is one; nothing is published; the next request is served."""
    async with client.post(PATH, data=body, headers=JSON) as response:
        answer = await response.json(content_type="application/problem+json")
        assert (response.status, answer["status"], answer["code"]) == (status, status, code)
        assert answer.get("field") == field
        assert {"type", "title", "detail"} <= answer.keys()
    assert fakes.publisher.records == []
    async with client.post(PATH, data=GOOD, headers=JSON) as response:
        assert response.status == 202


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"text": "hel', "the conversation is not JSON: it ends too early"),
        (b'{"text": 5}', "`text` must be a string, not a number"),
        (b'{"messages": [{"text": "hello"}]}', "`messages[0].role` is missing"),
    ],
)
async def test_a_bad_body_is_explained_in_plain_words(client: TestClient, body: bytes, detail: str) -> None:
    """Not in those of the JSON parser."""
    async with client.post(PATH, data=body, headers=JSON) as response:
        assert (await response.json(content_type="application/problem+json"))["detail"] == detail


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-Type": "text/plain"}, "unsupported_media_type"),
        ({"Content-Type": "application/json; charset=utf-16"}, "unsupported_media_type"),
        ({"Content-Type": "image/svg+json"}, "unsupported_media_type"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "unsupported_encoding"),
        ({"Content-Type": "application/json", "Content-Encoding": "foo"}, "unsupported_encoding"),
    ],
)
async def test_other_kinds_of_body_are_415(client: TestClient, headers: dict[str, str], code: str) -> None:
    """Only plain JSON in UTF-8 is read."""
    async with client.post(PATH, data=GOOD, headers=headers) as response:
        answer = await response.json(content_type="application/problem+json")
        assert (response.status, answer["code"]) == (415, code)


async def test_a_stream_without_length_is_stopped_at_the_limit(client: TestClient) -> None:
    """A chunked body past the limit gets the answer 413 and no reset."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"a" * 65536

    async with client.post(PATH, data=endless(), headers=JSON) as response:
        answer = await response.json(content_type="application/problem+json")
        assert (response.status, answer["code"]) == (413, "too_large")


async def test_the_largest_body_is_read(client: TestClient) -> None:
    """Exactly the limit is judged by its content, one byte more by its size."""
    for size, status in ((MAX_VALUE_BYTES, 202), (MAX_VALUE_BYTES + 1, 413)):
        async with client.post(PATH, data=b'{"text": "hello"}'.ljust(size), headers=JSON) as response:
            assert response.status == status


async def test_broken_chunks_are_400(client: TestClient) -> None:
    """A body that contradicts its own framing is the client's fault, and is answered."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await _raw(client, head.encode() + b'5\r\n{"tex\r\nnonsense\r\n')
    assert answer.split(maxsplit=2)[1] == b"400"


async def test_a_client_that_disconnects_is_not_an_error(
    client: TestClient, fakes: FakeDependencies, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that ends in the middle of a body logs and publishes nothing."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(head.encode() + b"\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with client.post(PATH, data=GOOD, headers=JSON) as response:
        assert response.status == 202
    assert len(fakes.publisher.records) == 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_no_confirmation_is_503(client: TestClient, fakes: FakeDependencies) -> None:
    """The response says when to retry, and the gateway recovers."""
    fakes.publisher.failure = BrokerUnavailable("the broker did not confirm in time", retry_after_s=2.2)
    async with client.post(PATH, data=GOOD, headers=JSON) as response:
        answer = await response.json(content_type="application/problem+json")
        assert (response.status, answer["code"], response.headers["Retry-After"]) == (503, "broker_unavailable", "3")
    fakes.publisher.failure = None
    async with client.post(PATH, data=GOOD, headers=JSON) as response:
        assert response.status == 202


async def test_a_defect_discloses_nothing(client: TestClient, fakes: FakeDependencies, capfd: Any) -> None:
    """A 500 is a problem without internals; the next request is served."""
    fakes.publisher.failure = ZeroDivisionError("secret canary")
    async with client.post(PATH, data=GOOD, headers=JSON) as response:
        body = await response.text()
        assert (response.status, json.loads(body)["code"]) == (500, "internal_error")
        assert "canary" not in body
        assert "ZeroDivision" not in body
    fakes.publisher.failure = None
    async with client.post(PATH, data=GOOD, headers=JSON) as response:
        assert response.status == 202


async def _raw(client: TestClient, sent: bytes) -> bytes:
    """What the server answers to these bytes, up to the end of the headers."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
