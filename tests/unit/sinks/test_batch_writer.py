"""A writer's patience and care, on a server that is made to fail; the real one's is in tests/contracts."""

import asyncio
from collections.abc import Sequence
from typing import cast

import asyncpg
import pytest
from streams.sinks.batch_writer import BatchWriter, Write

from agents.limits.retry import Backoff
from schemas.errors import Fatal
from streams.sinks import batch_writer
from streams.sinks.rows import Row


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The back-off has tests of its own."""
    monkeypatch.setattr(batch_writer, "OUTAGE_BACKOFF", Backoff(base_s=1e-6, cap_s=1e-6))


class Connection:
    """Can be dropped, no more."""

    is_dropped = False

    def is_closed(self) -> bool:
        return self.is_dropped

    def terminate(self) -> None:
        self.is_dropped = True


class Server:
    """Refuses `bad` rows with that error; raises the given errors first, one a statement."""

    def __init__(self, failures: Sequence[Exception] = (), bad: dict[int, Exception] | None = None) -> None:
        self.failures = list(failures)
        self.bad = bad or {}
        self.connections: list[Connection] = []
        self.statements: list[list[int]] = []
        self.stored: set[int] = set()
        self.writer = BatchWriter(self.connect, self.store)

    async def connect(self) -> asyncpg.Connection:
        self.connections.append(Connection())
        return cast(asyncpg.Connection, self.connections[-1])

    async def store(self, connection: asyncpg.Connection, rows: list[Row]) -> None:
        assert not connection.is_closed()
        self.statements.append([number for (number,) in rows])
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        for number in self.statements[-1]:
            if number in self.bad:
                raise self.bad[number]
        self.stored.update(self.statements[-1])


def a_batch(size: int) -> list[Write]:
    return [Write((number,), asyncio.get_running_loop().create_future()) for number in range(size)]


async def test_an_outage_costs_nobody_anything() -> None:
    """However long it is; each attempt has a new connection, for the last one may be dead without a sign."""
    server, batch = Server([ConnectionResetError()] * 100), a_batch(3)
    await server.writer.settle(batch)
    assert [write.done.result() for write in batch] == [None] * 3
    assert len(server.connections) == 101
    assert [connection.is_dropped for connection in server.connections] == [True] * 100 + [False]


async def test_a_conflict_keeps_its_connection() -> None:
    """The server is well: all rows go again, together."""
    server = Server([asyncpg.DeadlockDetectedError(), asyncpg.SerializationError()])
    await server.writer.settle(a_batch(3))
    assert (server.statements, len(server.connections)) == ([[0, 1, 2]] * 3, 1)


async def test_a_defect_hits_only_the_row_that_has_it() -> None:
    """Also one that nobody foresaw: the others are stored."""
    defect = ZeroDivisionError()
    server, batch = Server(bad={5: defect}), a_batch(16)
    await server.writer.settle(batch)
    assert server.stored == set(range(16)) - {5}
    assert batch[5].done.exception() is defect


async def test_tables_that_are_not_there_are_told_to_all_at_once() -> None:
    """Looking for a bad row would be in vain."""
    server, batch = Server([asyncpg.UndefinedTableError()]), a_batch(16)
    await server.writer.settle(batch)
    assert {type(write.done.exception()) for write in batch} == {Fatal}
    assert len(server.statements) == 1


@pytest.mark.parametrize(
    ("error", "is_dropped"),
    [(asyncpg.LockNotAvailableError(), False), (asyncpg.QueryCanceledError(), False), (TimeoutError(), True)],
)
async def test_rows_that_are_too_slow_are_handed_back(error: Exception, is_dropped: bool) -> None:
    """Their neighbours are stored; a connection is dropped only when the server did not end the statement itself."""
    server, batch = Server(bad={5: error, 11: error}), a_batch(16)
    async with asyncio.timeout(10):
        held = await server.writer.settle(batch)
    assert sorted(write.row for write in held) == [(5,), (11,)]
    assert not any(write.done.done() for write in held)
    assert server.stored == set(range(16)) - {5, 11}
    assert server.connections[0].is_dropped is is_dropped


async def test_nobody_is_handed_back_twice() -> None:
    """What an earlier batch left is not the next one's."""
    server = Server(bad={5: asyncpg.LockNotAvailableError()})
    async with asyncio.timeout(10):
        assert len(await server.writer.settle(a_batch(16))) == 1
        assert await server.writer.settle(a_batch(5)) == []
