"""An analyst on fakes, with the dead-letter limit and the trackers that a worker gives it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from agents.analyst import Analyst, AnalystOptions, Sinks
from agents.decode import Job
from schemas.errors import Fatal
from schemas.outcome import outcome_name
from schemas.result import ConversationResult
from streams.worker.dead_letter_limit import DeadLetterLimit
from streams.worker.offsets import Tracker
from tests.fakes.analysis import FakeAnalyser, MemoryAnswers
from tests.fakes.sinks import FakeRows, FakeSender, Journal
from tests.support.factories import NOON, PARTITIONS, a_record, a_tracker
from tests.support.topics import TOPICS

#: Of virtual time: longer than any back-off and any number of attempts that are bounded.
LONG_S = 600.0
CACHE_TTL = timedelta(days=30)
DEAD_LETTER_LIMIT = 100


class Counts(Counter[str]):
    """Counts outcomes; see agents.analyst.Observer."""

    def ended(self, jobs: Sequence[Job]) -> None:
        self.update(outcome_name(job.outcome) for job in jobs)

    def rehomed(self, count: int) -> None:
        self["rehomed"] += count


class Bench:
    """Has one partition by default, so that it owns every text."""

    def __init__(
        self, *, partitions: int = 1, max_calls: int = 8, max_open_records: int = 1_000, now: datetime = NOON
    ) -> None:
        self.journal: Journal = []
        self.analyser, self.answers = FakeAnalyser(), MemoryAnswers(range(PARTITIONS))
        self.rows = FakeRows(self.journal)
        self.events, self.rehomed, self.dead_letters = (
            FakeSender(name, self.journal) for name in ("event", "rehomed", "dead letter")
        )
        self.counts = Counts()
        self.failures: list[BaseException] = []
        self.halts: list[Fatal] = []
        self.limit = DeadLetterLimit(self.halts.append, DEAD_LETTER_LIMIT)
        self.now = now
        self.analyst = Analyst(
            self.analyser,
            self.answers,
            Sinks(self.rows, self.events, self.rehomed, self.dead_letters),
            self.limit,
            self.counts,
            self.failures.append,
            self._now,
            AnalystOptions(max_calls=max_calls, max_open_records=max_open_records, cache_ttl=CACHE_TTL),
        )
        self.analyst.partitions = partitions
        self.tracker = a_tracker()

    async def __aenter__(self) -> Self:
        await self.analyst.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.analyst.drain(0, 0)
        self.revoke()
        await self.analyst.stop()

    def _now(self) -> datetime:
        return self.now

    # --- what a test does

    def take(self, *values: bytes | None, tracker: Tracker | None = None) -> None:
        """Delivers a fetch with a record for each value, from the tracker's position; by default to the bench's own
        tracker."""
        tracker = tracker or self.tracker
        tp, start = tracker.tp, tracker.next
        records = [
            a_record(value, topic=tp.topic, partition=tp.partition, offset=offset)
            for offset, value in enumerate(values, start)
        ]
        self.analyst.take(tracker, records, rehomed=tp.topic == TOPICS.rehomed)

    async def settle(self) -> None:
        """Returns when nothing more can happen by itself."""
        await asyncio.sleep(LONG_S)

    def revoke(self, *trackers: Tracker) -> None:
        """The assignment is over, after whatever drain the test has made."""
        for tracker in (self.tracker, *trackers):
            tracker.revoke()
        self.analyst.forget()

    def assign_again(self) -> None:
        """Assigns the partition again, from its committed offset."""
        self.tracker = a_tracker(start=self.tracker.committable or 0)

    # --- what a test looks at

    def row(self, conversation_id: str = "c-1") -> ConversationResult | None:
        return self.rows.rows.get(("default", conversation_id))

    @property
    def outcomes(self) -> dict[str, str]:
        """Returns the outcome of every row, by conversation id."""
        return {conversation_id: row.outcome for (_, conversation_id), row in self.rows.rows.items()}

    @property
    def is_all_finished(self) -> bool:
        """Whether every record of the bench's tracker may be committed, and the analyst has none open."""
        return self.tracker.committable == self.tracker.next and self.analyst.open_records == 0
