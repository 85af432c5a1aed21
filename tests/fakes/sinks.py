"""Sinks in memory; run against the real ones in tests/contracts."""

import asyncio
from collections.abc import Sequence

from agents.analyst import RowResults
from agents.decode import Job
from schemas.errors import Retryable, Unprocessable
from schemas.result import ConversationResult

#: What happened, in order: the sink's name, and the offset of the record.
Journal = list[tuple[str, int]]


class FakeRows:
    """One row for each (tenant, id): the newest occurred_at wins, a dead one is replaced by its equal.

    Raises the given failures first, one a call, and stores nothing then; `refused` and `blocked` are ids.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal: Journal = [] if journal is None else journal
        self.failures: list[Exception] = []
        self.refused: dict[str, Exception] = {}
        self.blocked: set[str] = set()
        self.rows: dict[tuple[str, str], ConversationResult] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, jobs: Sequence[Job]) -> RowResults:
        """See agents.analyst.Rows."""
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        written = RowResults([], [], [])
        for job in jobs:
            if job.is_wanted:
                self._write(job, written)
        return written

    def _write(self, job: Job, written: RowResults) -> None:
        result = job.result
        if result.id in self.refused:
            written.refused.append((job, self.refused[result.id]))
        elif result.id in self.blocked:
            written.blocked.append(job)
        else:
            key = (result.tenant, result.id)
            if key not in self.rows or _wins(result, self.rows[key]):
                self.rows[key] = result
            self.journal.append(("row", job.source.offset))
            written.stored.append(job)


def _wins(result: ConversationResult, stored: ConversationResult) -> bool:
    if result.occurred_at == stored.occurred_at:
        return stored.outcome == "dead" and result.outcome != "dead"
    return result.occurred_at > stored.occurred_at


class FakeSender:
    """Takes every job in order; `errors` has what it answers first for the record at an offset, one a send."""

    def __init__(self, name: str = "", journal: Journal | None = None) -> None:
        self.name = name
        self.journal: Journal = [] if journal is None else journal
        self.errors: dict[int, list[Retryable | Unprocessable]] = {}
        self.sends: list[list[int]] = []
        self.sent: list[Job] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, jobs: Sequence[Job]) -> list[Retryable | Unprocessable | None]:
        """See agents.analyst.Sender."""
        self.sends.append([job.source.offset for job in jobs])
        await self.gate.wait()
        return [self._send(job) for job in jobs]

    def _send(self, job: Job) -> Retryable | Unprocessable | None:
        if errors := self.errors.get(job.source.offset):
            return errors.pop(0)
        self.journal.append((self.name, job.source.offset))
        self.sent.append(job)
        return None
