"""One call per key at a time: callers with an equal key share the call that is under way."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    """A call under way and those who wait for it."""

    def __init__(self, make: Callable[[], Awaitable[V]]) -> None:
        self.task: asyncio.Task[V] = asyncio.create_task(_call(make), name="single-flight")
        self.task.add_done_callback(_retrieve)
        self.waiting = 0
        self.led = False


class SingleFlight(Generic[K, V]):
    """Shares calls within one event loop.

    The call belongs to no single caller: it goes on as long as anyone waits for it, so that the cancellation of the
    caller who began it neither fails the others nor throws away what may have been billed already.
    """

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}

    def __len__(self) -> int:
        """Calls under way."""
        return len(self._flights)

    async def run(self, key: K, make: Callable[[], Awaitable[V]]) -> tuple[V, bool]:
        """The call's value, and True for exactly one of those who shared it: the leader, who accounts for it.

        The leader is whoever has waited longest when the call ends. An error of the call reaches everyone who waits.
        The call is cancelled when the last of them is.
        """
        while True:
            began = key not in self._flights
            flight = self._flights[key] if not began else self._begin(key, make)
            await self._wait(key, flight)
            if flight.task.cancelled() and not began:
                continue  # someone else's call was cancelled from outside, not this caller: begin anew
            value = flight.task.result()
            leader, flight.led = not flight.led, True
            return value, leader

    def _begin(self, key: K, make: Callable[[], Awaitable[V]]) -> _Flight[V]:
        flight = self._flights[key] = _Flight(make)
        flight.task.add_done_callback(lambda _: self._forget(key, flight))
        return flight

    async def _wait(self, key: K, flight: _Flight[V]) -> None:
        flight.waiting += 1
        try:
            # Unlike awaiting the task, this leaves the task alone when the caller is cancelled.
            await asyncio.wait({flight.task})
        except asyncio.CancelledError:
            if flight.waiting == 1:
                self._forget(key, flight)
                flight.task.cancel()
                await asyncio.wait({flight.task})
            raise
        finally:
            flight.waiting -= 1

    def _forget(self, key: K, flight: _Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _call(make: Callable[[], Awaitable[V]]) -> V:
    return await make()


def _retrieve(task: asyncio.Task[V]) -> None:
    """Marks the error as seen, for the case that every caller was cancelled just before it came."""
    if not task.cancelled():
        task.exception()
