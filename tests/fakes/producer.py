"""A fake of aiokafka's producer with scripted results; tests/contracts runs it against the real one."""

import asyncio
from typing import Any


class FakeProducer:
    """`start_error` fails the start, `send_error` each confirmation; `is_silent` never confirms."""

    def __init__(self, *, start_error: Exception | None = None, send_error: Exception | None = None) -> None:
        self.start_error = start_error
        self.send_error = send_error
        self.is_silent = False
        self.is_stopped = False
        self.sent: list[bytes] = []
        self.client = self

    async def start(self) -> None:
        if self.start_error is not None:
            raise self.start_error

    async def add_topic(self, topic: str) -> None:
        return None

    async def stop(self) -> None:
        self.is_stopped = True

    async def send(self, topic: str, value: bytes, **_: Any) -> "asyncio.Future[None]":
        confirmation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent.append(value)
        if self.send_error is not None:
            confirmation.set_exception(self.send_error)
        elif not self.is_silent:
            confirmation.set_result(None)
        return confirmation
