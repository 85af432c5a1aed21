"""The reconciliation: compares all observations of each conversation. Pure; does no I/O.

A record is identified by its origin, its place in `conversations` (or in `conversations.rehomed`, where another
producer wrote it). It is *due* once it and every rehomed copy of it are below the group's committed offset. Until then
it is `pending`, whatever outcome it already has. Every due record has exactly one status:

- `analysed`, `cached`, `filtered`: the row of its tenant and id has this origin, and there is an event of this origin.
  No dead letter of this origin is newer than the row; an older one is from an attempt before a crash (`overtaken`).
- `dead`: there is a dead letter of this origin and the dead row of its tenant and id, and no event. The dead letter
  alone is enough where no id could be read or Postgres refuses the row.
- `duplicate`: it has an event or a dead letter, and the row of its tenant and id belongs to another record that is not
  older, or that had the same text, or this one failed its check: the id was sent several times, or its dead letter was
  replayed.
- otherwise it is `missing`, `incomplete` (a row without its event, a dead row without its dead letter) or
  `contradictory` (two outcomes).

In the other direction, every row, copy, dead letter and event has a record, or it is `orphaned`. Where retention may
have removed the record, or where it may be newer than the audit, that cannot be said, and is counted as such. An event
always needs a row. Where retention removed part of the events or dead letters, the absence of an older one proves
nothing: such a record counts as `unverifiable`. So do records that were removed while the group had committed nothing.
Records that were removed before the group committed them are `lost`; offsets that the group committed and the log does
not have are `ahead`.

In each partition:  records = pending + analysed + cached + filtered + dead + duplicate
                              + missing + incomplete + contradictory
in all:             records = distinct ids + further records of an id + records without a readable id
                    rows    = rows of records + beyond retention + later + orphaned
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, groupby
from operator import attrgetter
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord

from schemas.kafka import Origin
from schemas.outcome import OUTCOME_NAMES
from streams.operations.audit.findings import ELSEWHERE, Discrepancy, PartitionCounts, Reconciliation, Status
from streams.operations.audit.observations import Kind, Observation, tenant_and_id, timestamp_us

#: How far the clocks of different writers may differ: close to the edge of retention an absence proves nothing.
CLOCK_SKEW_US = 5_000_000
#: Nothing was removed.
ALWAYS = -math.inf
#: Everything was removed, or its oldest record could not be read.
NEVER = math.inf

_DEAD = OUTCOME_NAMES.index("dead")
_NOT_WRITTEN_YET = 2**63 - 1


class Absence(StrEnum):
    """What it means that the audit read no record at an origin; also what a row of that origin is counted as."""

    PROVEN = "orphaned"  # no such record: the audit read that range, or the log has no such offset or partition
    REMOVED = "beyond_retention"  # retention may have removed it
    LATER = "later"  # it may have been written after the audit began


class ReadSpan(NamedTuple):
    """Beginning of a partition after the audit read it, and its end before and after that."""

    beginning: int
    end: int
    later_end: int


#: By topic and partition, for all input topics.
ReadSpans = Mapping[tuple[str, int], ReadSpan]


class CompleteSince(NamedTuple):
    """Times in microseconds since 1970: events and dead letters of records written after them are all still there."""

    dead_letters_us: float = ALWAYS
    events_us: float = ALWAYS


def complete_since_us(oldest: Iterable[ConsumerRecord | None]) -> float:
    """Returns the time since which a topic is complete, from the oldest record of each partition that lost some.

    None is a partition without records. The latest time counts, since an event may be in any partition.
    """
    return max((NEVER if record is None else timestamp_us(record) + CLOCK_SKEW_US for record in oldest), default=ALWAYS)


@dataclass(slots=True)
class Evidence:
    """All observations of one origin, except the row; times are microseconds since 1970."""

    origin: Origin
    records: int = 0
    copies: int = 0
    dead_letters: int = 0
    events: int = 0
    is_due: bool = True
    is_rowless: bool = False
    occurred_us: int = 0
    written_us: int = _NOT_WRITTEN_YET
    died_us: int = 0

    def add(self, found: Observation) -> None:
        """Adds one observation of this origin."""
        match found.kind:
            case Kind.RECORD | Kind.COPY:
                self.records += found.kind == Kind.RECORD
                self.copies += found.kind == Kind.COPY
                self.is_due = self.is_due and bool(found.state)
                self.occurred_us = found.occurred_us
                self.written_us = min(self.written_us, found.made_us)
            case Kind.DEAD_LETTER:
                self.dead_letters += 1
                self.is_rowless = self.is_rowless or bool(found.state)
                self.died_us = max(self.died_us, found.made_us)
            case Kind.EVENT:
                self.events += 1

    @property
    def has_record(self) -> bool:
        """False for dead letters and events alone. A copy proves a record that retention removed."""
        return self.records + self.copies > 0

    def finished_after_us(self, row: Observation) -> int:
        """Uses the worker's time of the row too: a producer may stamp its record with a time in the future."""
        return min(self.written_us, row.made_us)

    def is_overtaken_by(self, row: Observation | None) -> bool:
        """Whether the record died and got another outcome when it was read again after a crash."""
        if row is None or row.origin != self.origin or row.state == _DEAD:
            return False
        return self.dead_letters > 0 and self.died_us < row.made_us


class Classification(NamedTuple):
    """A record's status; `why` is empty where nothing is wrong, `is_unverifiable` where retention hid the proof."""

    status: Status
    why: str = ""
    is_unverifiable: bool = False


def classify(evidence: Evidence, row: Observation | None, complete: CompleteSince, *, has_id: bool) -> Classification:
    """Classifies a record; `row` is the one of its conversation, and `has_id` says whether there can be one."""
    if not evidence.is_due:
        return Classification(Status.PENDING, "not yet committed")
    if row is None:
        return _without_row(evidence) if has_id else _without_id(evidence, complete)
    if row.origin != evidence.origin:
        return _with_row_of_another_record(evidence, row, complete)
    return (_with_dead_row if row.state == _DEAD else _with_row)(evidence, row, complete)


def _without_id(evidence: Evidence, complete: CompleteSince) -> Classification:
    """A record without an id has neither row nor event."""
    if evidence.dead_letters:
        return Classification(Status.DEAD)
    if evidence.written_us > complete.dead_letters_us:
        return Classification(Status.MISSING, "no readable id, and no dead letter")
    return Classification(Status.DEAD, is_unverifiable=True)


def _without_row(evidence: Evidence) -> Classification:
    if evidence.events:
        return Classification(Status.MISSING, "an event, but no row")
    if evidence.is_rowless:
        return Classification(Status.DEAD)
    why = "a dead letter, but no row" if evidence.dead_letters else "neither row nor dead letter"
    return Classification(Status.MISSING, why)


def _with_row_of_another_record(evidence: Evidence, row: Observation, complete: CompleteSince) -> Classification:
    if evidence.is_rowless:
        return Classification(Status.DEAD)
    if evidence.occurred_us > row.occurred_us:
        return Classification(Status.MISSING, "the row belongs to an older record of the same id")
    if evidence.dead_letters or evidence.events:
        return Classification(Status.DUPLICATE)
    if evidence.written_us > max(complete.dead_letters_us, complete.events_us):
        why = "neither event nor dead letter, and the row belongs to another record of the same id"
        return Classification(Status.MISSING, why)
    return Classification(Status.DUPLICATE, is_unverifiable=True)


def _with_dead_row(evidence: Evidence, row: Observation, complete: CompleteSince) -> Classification:
    if evidence.events:
        return Classification(Status.CONTRADICTORY, "a dead row, but an event")
    if evidence.dead_letters:
        return Classification(Status.DEAD)
    if evidence.finished_after_us(row) > complete.dead_letters_us:
        return Classification(Status.INCOMPLETE, "a dead row, but no dead letter")
    return Classification(Status.DEAD, is_unverifiable=True)


def _with_row(evidence: Evidence, row: Observation, complete: CompleteSince) -> Classification:
    outcome = OUTCOME_NAMES[row.state]
    if evidence.dead_letters and not evidence.is_overtaken_by(row):
        return Classification(Status.CONTRADICTORY, f"the row says {outcome}, but a later dead letter exists")
    if evidence.events:
        return Classification(Status(outcome))
    if evidence.finished_after_us(row) > complete.events_us:
        return Classification(Status.INCOMPLETE, f"the row says {outcome}, but there is no event")
    return Classification(Status(outcome), is_unverifiable=True)


class Reconciler:
    """Fills `result`. Holds the evidence of one origin at a time, however many records an id has."""

    def __init__(self, result: Reconciliation, spans: ReadSpans, complete: CompleteSince) -> None:
        self._result = result
        self._spans = spans
        self._complete = complete

    def reconcile(self, observations: Iterable[Observation]) -> None:
        """Takes the observations in the order of ExternalSort.sorted."""
        for key, found in groupby(observations, key=attrgetter("key")):
            self._conversation(key, found)

    def _conversation(self, key: bytes, found: Iterator[Observation]) -> None:
        first = next(found)
        row, others = (first, found) if first.kind == Kind.ROW else (None, chain([first], found))
        has_id, records, row_has_record = tenant_and_id(key) is not None, 0, False
        for origin, observations in groupby(others, key=attrgetter("origin")):
            evidence = Evidence(origin)
            for observation in observations:
                evidence.add(observation)
            self._count_repeats(evidence, row)
            if evidence.has_record:
                records += 1
                row_has_record = row_has_record or (row is not None and row.origin == evidence.origin)
                self._record(key, evidence, classify(evidence, row, self._complete, has_id=has_id))
            else:
                self._without_record(key, evidence, row)
        if row is not None:
            self._row(key, row, has_record=row_has_record)
        self._count_ids(records, has_id=has_id)

    def _record(self, key: bytes, evidence: Evidence, classification: Classification) -> None:
        counts, origin = self._counts(evidence.origin), evidence.origin
        if not evidence.records:
            counts.records += 1
            self._orphan_if_proven(key, origin, "a rehomed copy of a record that does not exist")
        self._result.add(counts, key, origin, classification.status, classification.why)
        if classification.is_unverifiable:
            why = "retention may have removed its event or dead letter"
            self._result.add(counts, key, origin, Discrepancy.UNVERIFIABLE, why)

    def _without_record(self, key: bytes, evidence: Evidence, row: Observation | None) -> None:
        if evidence.dead_letters:
            self._orphan_if_proven(key, evidence.origin, "a dead letter without a record")
        if evidence.events and row is None:
            self._orphan(key, evidence.origin, "an event with neither record nor row")
        elif evidence.events:
            self._orphan_if_proven(key, evidence.origin, "an event without a record")

    def _row(self, key: bytes, row: Observation, *, has_record: bool) -> None:
        if has_record:
            self._result.rows["of_records"] += 1
            return
        absence = self._absence(row.origin)
        self._result.rows[absence] += 1
        if absence is Absence.PROVEN:
            self._orphan(key, row.origin, "a row without a record")

    def _orphan_if_proven(self, key: bytes, origin: Origin, why: str) -> None:
        """Counts nothing where the record may be newer than the audit: the next one reads it."""
        absence = self._absence(origin)
        if absence is Absence.PROVEN:
            self._orphan(key, origin, why)
        self._result.beyond_retention += absence is Absence.REMOVED

    def _absence(self, origin: Origin) -> Absence:
        span = self._spans.get((origin.topic, origin.partition))
        if span is None or origin.offset >= span.later_end:
            return Absence.PROVEN
        if origin.offset < span.beginning:
            return Absence.REMOVED
        return Absence.PROVEN if origin.offset < span.end else Absence.LATER

    def _orphan(self, key: bytes, origin: Origin, why: str) -> None:
        self._result.add(self._counts(origin), key, origin, Discrepancy.ORPHANED, why)

    def _counts(self, origin: Origin) -> PartitionCounts:
        partition = (origin.topic, origin.partition)
        return self._result.counts(*(partition if partition in self._spans else ELSEWHERE))

    def _count_repeats(self, evidence: Evidence, row: Observation | None) -> None:
        self._result.copies["repeated"] += max(0, evidence.copies - 1)
        self._result.events["repeated"] += max(0, evidence.events - 1)
        self._result.dead_letters["repeated"] += max(0, evidence.dead_letters - 1)
        self._result.dead_letters["overtaken"] += evidence.has_record and evidence.is_overtaken_by(row)

    def _count_ids(self, records: int, *, has_id: bool) -> None:
        if not has_id:
            self._result.ids["without_id"] += records
        elif records:
            self._result.ids["distinct"] += 1
            self._result.ids["repeats"] += records - 1
