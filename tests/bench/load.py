"""A load generator: POSTs JSON bodies over keep-alive connections, as fast as they are answered or at a given rate.

It speaks just enough HTTP/1.1 to stay far cheaper than the servers it measures, and runs as a process of its own:

    python -m tests.bench.load URL BODIES --seconds 10 [--rate 500] [--connections 64]

BODIES has one body a line. At a given rate a latency counts from when the request was due, so that a server that
falls behind cannot hide it. Prints one line of JSON.
"""

import argparse
import asyncio
import re
import time
from collections import Counter, deque
from itertools import count
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TICK_S = 0.002


class LoadFigures(msgspec.Struct):
    """What the server did. `began_s` is Unix time; body number n of a paced run was due at began_s + n / rate."""

    seconds: float
    answered: int
    statuses: dict[int, int]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    began_s: float

    @property
    def rate(self) -> float:
        """Requests answered a second."""
        return self.answered / self.seconds


class _Connection(asyncio.Protocol):
    """One request at a time; replies need a Content-Length."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._received = b""
        self._due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due_s: float) -> None:
        self._due_s = due_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(received, 0, head_end + 2)
        assert length, f"a reply without Content-Length: {received[:200]!r}"
        if len(received) >= head_end + 4 + int(length[1]):
            self._received = b""
            self._load.replied(self, int(received[9:12]), self._due_s)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(error)


class Load:
    """One run against one URL. Bodies are repeated when they run out."""

    def __init__(self, url: str, bodies: list[bytes], connections: int, rate: float | None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._address = (parts.hostname, parts.port or 80)
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer bench\r\n".encode()
        kind = b"Content-Type: application/json\r\nContent-Length: "
        self._requests = [b"%b%b%d\r\n\r\n%b" % (head, kind, len(body), body) for body in bodies]
        self._connections, self._rate = connections, rate
        self._idle: deque[_Connection] = deque()
        self._latencies_s: list[float] = []
        self._statuses: Counter[int] = Counter()
        self._sent = 0
        self._is_over = asyncio.Event()
        self._failure: Exception | None = None

    async def run(self, seconds: float) -> LoadFigures:
        """Returns after `seconds`, or at a given rate when every request that was due is answered."""
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            self._idle.append((await loop.create_connection(lambda: _Connection(self), *self._address))[1])
        began_s, self._began_s = time.time(), time.monotonic()
        self._ends_s = self._began_s + seconds
        if self._rate is None:
            while self._idle:
                self._send(self._idle.popleft(), time.monotonic())
            loop.call_later(seconds, self._is_over.set)
        else:
            pacing = loop.create_task(self._pace(seconds))
        await self._is_over.wait()
        if self._rate is not None:
            pacing.cancel()
        if self._failure is not None:
            raise self._failure
        return self._figures(time.monotonic() - self._began_s, began_s)

    def replied(self, connection: _Connection, status: int, due_s: float) -> None:
        now_s = time.monotonic()
        self._latencies_s.append(now_s - due_s)
        self._statuses[status] += 1
        if self._rate is None:
            self._send(connection, now_s)
        else:
            self._idle.append(connection)

    def lost(self, error: Exception | None) -> None:
        if not self._is_over.is_set():
            self._failure = ConnectionError(f"the server closed a connection: {error}")
            self._is_over.set()

    def _send(self, connection: _Connection, due_s: float) -> None:
        connection.send(self._requests[self._sent % len(self._requests)], due_s)
        self._sent += 1

    async def _pace(self, seconds: float) -> None:
        assert self._rate is not None
        total = round(seconds * self._rate)
        for number in count():
            due_s = self._began_s + number / self._rate
            if number == total:
                break
            if (ahead_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(ahead_s)
            while not self._idle:
                await asyncio.sleep(_TICK_S)
            self._send(self._idle.popleft(), due_s)
        while len(self._latencies_s) < total:
            await asyncio.sleep(_TICK_S)
        self._is_over.set()

    def _figures(self, seconds: float, began_s: float) -> LoadFigures:
        ordered = sorted(self._latencies_s) or [0.0]
        p50, p95, p99 = (round(1000 * ordered[int(len(ordered) * share)], 2) for share in (0.5, 0.95, 0.99))
        return LoadFigures(seconds, len(self._latencies_s), dict(self._statuses), p50, p95, p99, began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=None, help="requests a second; as fast as possible when unset")
    parser.add_argument("--connections", type=int, default=64)
    arguments = parser.parse_args()

    async def run() -> LoadFigures:
        bodies = arguments.bodies.read_bytes().splitlines()
        return await Load(arguments.url, bodies, arguments.connections, arguments.rate).run(arguments.seconds)

    print(msgspec.json.encode(uvloop.run(run())).decode())


if __name__ == "__main__":
    main()
