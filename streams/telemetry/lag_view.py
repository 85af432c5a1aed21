"""How far the worker group is behind: the value, where it comes from, and the last reading of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lag:
    """Records not yet finished by partition, age of the oldest of them in seconds, and workers in the group."""

    records_by_partition: Mapping[int, int]
    seconds: float
    members: int

    @property
    def records(self) -> int:
        return sum(self.records_by_partition.values())

    @property
    def worker_running(self) -> bool:
        return self.members > 0


class LagSource(Protocol):
    """Asks the broker; each call is a question of its own."""

    async def read(self) -> Lag:
        """The lag of this moment. Raises when the broker cannot tell."""


class LagView:
    """A health check that keeps what it read, so that one question to the broker serves check and figures."""

    def __init__(self, source: LagSource) -> None:
        self._source = source
        self.latest: Lag | None = None

    async def check(self) -> None:
        """Read anew; `latest` is None from here on until a reading succeeds. Raises what the source raises."""
        self.latest = None
        self.latest = await self._source.read()
