"""Waiting for the rows: it ends, one way or the other."""

import asyncio
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from schemas.errors import Fatal
from streams.demo import waiting
from streams.demo.insights_table import InsightsTable
from streams.demo.waiting import Waiting
from streams.local.stack import Stack


class Table:
    """Has one row more at each look, up to `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = 0

    async def count(self) -> int:
        self._rows = min(self._rows + 1, self._most)
        return self._rows

    async def missing(self, ids: Sequence[str]) -> list[str]:
        return list(ids[self._rows :])


class Silent:
    """A display that notes the last count."""

    last = 0

    def say(self, line: str) -> None: ...

    def begin(self, step: str, total: int | None) -> None: ...

    def reached(self, step: str, count: int) -> None:
        self.last = count

    def done(self, step: str) -> None: ...


def stack(*, is_running: bool = True) -> Stack:
    part = SimpleNamespace(name="worker-1", is_one_shot=False, is_running=is_running, exit_code=3)
    log = SimpleNamespace(path="demo.log", tail=lambda *_: ["its last words"])
    return cast(Stack, SimpleNamespace(parts=[part], log=log))


def waiting_for(table: Table, ids: list[str], stack: Stack, display: Silent | None = None) -> Waiting:
    return Waiting(stack, cast(InsightsTable, table), display or Silent(), ids)


async def test_it_ends_when_every_conversation_has_its_row() -> None:
    """The display has seen all of them."""
    display = Silent()
    async with asyncio.TaskGroup() as group:
        posting = group.create_task(asyncio.sleep(0))
        await waiting_for(Table(3), ["a", "b", "c"], stack(), display).until_all_ended(posting)
    assert display.last == 3


async def test_rows_that_do_not_come_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for ever, and says what is missing and where the log is."""
    monkeypatch.setattr(waiting, "STALLED_AFTER_S", 0.0)
    posting = asyncio.create_task(asyncio.sleep(0))
    with pytest.raises(Fatal, match="2 of 3 conversations have no row") as stalled:
        await waiting_for(Table(1), ["a", "b", "c"], stack()).until_all_ended(posting)
    assert "b, c" in stalled.value.why
    assert "demo.log" in stalled.value.hint


async def test_a_process_that_ended_is_named() -> None:
    """With its last words, instead of a wait for what it will not do."""
    posting = asyncio.create_task(asyncio.sleep(0))
    with pytest.raises(Fatal, match="worker-1 did not last the demo") as ended:
        await waiting_for(Table(1), ["a", "b"], stack(is_running=False)).until_all_ended(posting)
    await posting
    assert "exit code 3" in ended.value.why
    assert "its last words" in ended.value.why


async def test_a_failed_posting_ends_the_waiting() -> None:
    """Its own error is the one that is told."""

    async def fail() -> None:
        raise Fatal("the gateway refused a conversation")

    posting = asyncio.create_task(fail())
    began = time.monotonic()
    with pytest.raises(Fatal, match="refused"):
        await waiting_for(Table(0), ["a"], stack()).until_all_ended(posting)
    assert time.monotonic() - began < waiting.STALLED_AFTER_S
