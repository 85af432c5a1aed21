"""Sinks in memory; tests/contracts runs them against the real ones."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from agents.analyst import RowResults
from agents.decode import Job
from schemas.call import PaidCall
from schemas.errors import Retryable, Unprocessable
from schemas.result import ConversationResult

#: What happened, in order: the sink's name, and the offset of the record.
Journal = list[tuple[str, int]]


class FakeRows:
    """One row for each (tenant, id), by the rules of queries/upsert_insights.sql, and one for each paid call.

    Raises the given failures first, one a call, and stores nothing then; `refused` and `blocked` are ids.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal: Journal = [] if journal is None else journal
        self.failures: list[Exception] = []
        self.refused: dict[str, Exception] = {}
        self.blocked: set[str] = set()
        self.rows: dict[tuple[str, str], ConversationResult] = {}
        self.calls: dict[tuple[object, ...], PaidCall] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def write_calls(self, calls: Sequence[PaidCall]) -> None:
        """See agents.analyst.Rows."""
        await self.gate.wait()
        for call in calls:
            self.calls.setdefault((call.tenant, call.text_key, call.analysis_version, call.ended_at), call)

    async def write(self, jobs: Sequence[Job]) -> RowResults:
        """See agents.analyst.Rows."""
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        written = RowResults([], [], [])
        for job in jobs:
            if job.is_wanted:
                self._write(job, written)
        await self.write_calls([job.call for job in written.stored if job.call is not None])
        return written

    def _write(self, job: Job, written: RowResults) -> None:
        result = job.result
        if result.id in self.refused:
            written.refused.append((job, self.refused[result.id]))
        elif result.id in self.blocked:
            written.blocked.append(job)
        else:
            key = (result.tenant, result.id)
            stored = self.rows.get(key)
            if stored is None or _wins(result, stored):
                if stored is not None and _is_same(result, stored) and not _has_its_cost(result, stored):
                    result = replace(stored, occurred_at=result.occurred_at, repairs=result.repairs)
                elif stored is not None and stored.text_key is not None and stored.occurred_at > result.occurred_at:
                    result = replace(result, occurred_at=stored.occurred_at, repairs=stored.repairs)
                self.rows[key] = result
            self.journal.append(("row", job.source.offset))
            written.stored.append(job)


def _wins(result: ConversationResult, stored: ConversationResult) -> bool:
    return _rank(result) > _rank(stored) or (_is_same(result, stored) and _has_its_cost(result, stored))


def _has_its_cost(result: ConversationResult, stored: ConversationResult) -> bool:
    return (result.outcome, stored.outcome) == ("analysed", "cached")


def _rank(result: ConversationResult) -> tuple[bool, datetime, bool, datetime]:
    return result.text_key is not None, result.occurred_at, result.outcome != "dead", result.received_at


def _is_same(result: ConversationResult, stored: ConversationResult) -> bool:
    if (
        result.text_key is None
        or result.text_key != stored.text_key
        or (stored.outcome == "dead" and result.outcome != "dead")
    ):
        return False
    return result.analysis_version in (None, stored.analysis_version)


class FakeSender:
    """Accepts every job in order; `errors` are the first results for the record at an offset, one per send."""

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
