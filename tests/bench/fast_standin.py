"""A stand-in for the Grok API that costs a few microseconds a call, so that it never limits the measurement.

`grok-insights standin` analyses each text and can fail in many ways, which costs more CPU than some of the consumers
under test. This one refuses what a client can get wrong (key, body), gives every text the same valid answer, and counts
calls and distinct texts. tests/bench/test_fast_standin.py tests it against the same contract.
"""

import argparse
import asyncio
import hashlib
import re
from collections import Counter
from typing import cast

import msgspec
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_KEY = re.compile(rb"\r\nauthorization: *bearer +\S", re.IGNORECASE)
_ANSWER = {
    "sentiment": "negative",
    "sentiment_score": -0.4,
    "topics": ["billing", "delivery"],
    "intent": "report_problem",
    "urgency": "medium",
    "summary": "The customer reports a problem with an order and asks for help with it.",
    "action_needed": True,
    "confidence": 0.87,
    "language": "en",
}
_MESSAGE = {"role": "assistant", "content": msgspec.json.encode(_ANSWER).decode(), "refusal": None}
_REPLY = msgspec.json.encode(
    {
        "id": "0123456789abcdef0123456789abcdef",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "standin",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 460,
            "completion_tokens": 81,
            "total_tokens": 583,
            "prompt_tokens_details": {"text_tokens": 460, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 431},
            "completion_tokens_details": {"reasoning_tokens": 42, "audio_tokens": 0},
            "num_sources_used": 0,
            "cost_in_usd_ticks": 4_299_500,
        },
        "system_fingerprint": "fp_standin",
    }
)


class _Message(msgspec.Struct):
    role: str
    content: str


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]
    response_format: dict[str, object]


_decode = msgspec.json.Decoder(_Request).decode


class Standin:
    """Latency lies evenly between the two; a text's own hash draws it, so that every candidate waits equally long."""

    def __init__(self, latency_min_s: float = 0.0, latency_max_s: float = 0.0) -> None:
        self._latency_min_s, self._latency_range_s = latency_min_s, latency_max_s - latency_min_s
        self._calls: Counter[bytes] = Counter()
        self.in_flight = self._max_in_flight = 0

    def ask(self, head: bytes, body: bytes) -> float:
        """Counts a call and returns the seconds after which it is to be answered. Raises ValueError for a bad one."""
        if not _KEY.search(head):
            raise ValueError("no API key")
        text = _decode(body).messages[-1].content
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        self._calls[digest] += 1
        self.in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self.in_flight)
        return self._latency_min_s + self._latency_range_s * int.from_bytes(digest, "big") / 2**64

    def stats(self) -> bytes:
        """The figures under the names that `grok-insights standin` gives them."""
        figures = {"calls": self._calls.total(), "distinct_texts": len(self._calls)}
        return msgspec.json.encode(figures | {"in_flight": self.in_flight, "max_in_flight": self._max_in_flight})


class _Connection(asyncio.Protocol):
    """One request at a time, as clients without pipelining send them."""

    def __init__(self, standin: Standin) -> None:
        self._standin = standin
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(received, 0, head_end + 2)
        body_end = head_end + 4 + (int(length[1]) if length else 0)
        if len(received) >= body_end:
            self._received = received[body_end:]
            self._handle(received[: head_end + 2], received[head_end + 4 : body_end])

    def _handle(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path == b"/v1/chat/completions":
            self._ask(head, body)
        elif path.startswith(b"/v1/models/"):
            model = path.removeprefix(b"/v1/models/").decode()
            self._write(b"200 OK", msgspec.json.encode({"id": model, "object": "model"}))
        elif path == b"/control/stats":
            self._write(b"200 OK", self._standin.stats())
        else:
            self._write(b"404 Not Found", b'{"code":"not_found","error":"There is no such path."}')

    def _ask(self, head: bytes, body: bytes) -> None:
        try:
            latency_s = self._standin.ask(head, body)
        except (ValueError, msgspec.DecodeError):
            self._write(b"400 Bad Request", b'{"code":"invalid_argument","error":"The request is malformed."}')
            return
        if latency_s:
            asyncio.get_running_loop().call_later(latency_s, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._standin.in_flight -= 1
        self._write(b"200 OK", _REPLY)

    def _write(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        self._transport.write(head + body)


async def serve(standin: Standin, port: int) -> asyncio.Server:
    """Listens on loopback; port 0 takes any free one."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(standin), "127.0.0.1", port, backlog=4096)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-min-s", type=float, default=0.0)
    parser.add_argument("--latency-max-s", type=float, default=0.0)
    arguments = parser.parse_args()
    server = await serve(Standin(arguments.latency_min_s, arguments.latency_max_s), arguments.port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())
