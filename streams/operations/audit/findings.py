"""Reconciliation: how many records have which status, per partition and in all, and the findings. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from schemas.errors import Fatal
from schemas.kafka import Origin
from streams.operations.audit.observations import tenant_and_id

#: All partitions that do not exist, counted together: rows and headers may name any number of them.
ELSEWHERE = ("elsewhere", -1)


class Status(StrEnum):
    """What became of a record; every record in the input topics has exactly one status."""

    PENDING = "pending"  # not yet committed by the group
    ANALYSED = "analysed"
    CACHED = "cached"
    FILTERED = "filtered"
    DEAD = "dead"
    DUPLICATE = "duplicate"  # has an event or dead letter, while the row of its id belongs to another record
    MISSING = "missing"  # committed without an outcome
    INCOMPLETE = "incomplete"  # a row without its event, or a dead row without its dead letter
    CONTRADICTORY = "contradictory"  # two different outcomes


class Discrepancy(StrEnum):
    """What is counted besides the status of records."""

    ORPHANED = "orphaned"  # a row, copy, event or dead letter without a record
    LOST = "lost"  # removed by retention before the group read it
    AHEAD = "ahead"  # an offset that the group committed and the log does not have
    UNVERIFIABLE = "unverifiable"  # retention may have removed the proof


#: Fails the audit; the worst first.
FAILURES: tuple[str, ...] = (
    Status.MISSING,
    Discrepancy.LOST,
    Discrepancy.AHEAD,
    Status.CONTRADICTORY,
    Status.INCOMPLETE,
    Discrepancy.ORPHANED,
)
#: Fails a strict audit too.
UNPROVEN: tuple[str, ...] = (Status.PENDING, Discrepancy.UNVERIFIABLE)


class Finding(NamedTuple):
    """One fault that the audit found; `tenant` and `id` are None where no id can be read."""

    what: str
    tenant: str | None
    id: str | None
    origin: Origin
    why: str


@dataclass(slots=True)
class PartitionCounts:
    """Counts of one partition: records in the log, and how often each status and discrepancy occurred."""

    records: int = 0
    by: Counter[str] = field(default_factory=Counter)

    @property
    def adds_up(self) -> bool:
        return self.records == sum(self.by[status] for status in Status)

    @property
    def columns(self) -> dict[str, int]:
        """The number of records, then the count of each status and discrepancy, by name."""
        return {"records": self.records, **{str(what): self.by[what] for what in (*Status, *Discrepancy)}}


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """What the group's committed offset says about an input partition, in numbers of offsets."""

    committed: int = 0
    due_below: int = 0  # every record below this offset must have an outcome
    lost: int = 0  # removed by retention before the group committed them
    ahead: int = 0  # committed, but beyond the end of the log
    unverifiable: int = 0  # removed, and the group may or may not have read them


def group_progress(beginning: int, committed: int | None, end: int) -> GroupProgress:
    """Compares the group's offset, None before the first commit, with the edges of the log.

    `beginning` must be read before `committed`, and `end` after it, so that a group at work causes no finding.
    """
    if committed is None:
        return GroupProgress(unverifiable=beginning)
    ahead = max(0, committed - end)
    # Workers restart at the log's beginning where the committed offset is not in this log.
    due_below = beginning if ahead else committed
    return GroupProgress(committed, due_below, lost=max(0, beginning - committed), ahead=ahead)


class Reconciliation:
    """Collects the counts, and at most `max_findings` findings of each sort.

    `inputs` are the topics that the workers consume, in the order of the report. `strict` makes pending and
    unverifiable records findings.
    """

    def __init__(self, inputs: Sequence[str], max_findings: int, *, strict: bool = False) -> None:
        self.inputs = inputs
        self._max_findings = max_findings
        self._problems = (*FAILURES, *UNPROVEN) if strict else FAILURES
        self._findings: dict[str, list[Finding]] = {}
        self._partitions: dict[tuple[str, int], PartitionCounts] = {}
        #: Of records: distinct ids, further records of the same ids, and records without a readable id.
        self.ids: Counter[str] = Counter(distinct=0, repeats=0, without_id=0)
        self.rows: Counter[str] = Counter(read=0, of_records=0, beyond_retention=0, later=0, orphaned=0)
        # Repeated ones are what a crash between delivery and commit leaves behind: not a finding.
        self.copies: Counter[str] = Counter(read=0, repeated=0)
        self.dead_letters: Counter[str] = Counter(read=0, repeated=0, overtaken=0)
        self.events: Counter[str] = Counter(read=0, repeated=0)
        self.replayed = 0
        self.beyond_retention = 0

    def counts(self, topic: str, partition: int) -> PartitionCounts:
        """Returns the partition's counts, to be added to."""
        return self._partitions.setdefault((topic, partition), PartitionCounts())

    def add_progress(self, topic: str, partition: int, group: GroupProgress) -> None:
        """Adds what the group has committed in a partition of the input topics."""
        for what, count, why in (
            (Discrepancy.LOST, group.lost, "{} from this offset on: removed by retention before the group read them"),
            (Discrepancy.AHEAD, group.ahead, "committed, but {} beyond the end of the log: it was recreated"),
            (Discrepancy.UNVERIFIABLE, group.unverifiable, "{} from this offset on: removed, nothing is committed"),
        ):
            if count:
                self.counts(topic, partition).by[what] += count
                self._add_finding(what, None, Origin(topic, partition, group.committed), why.format(count))

    def add(
        self, counts: PartitionCounts, key: bytes, origin: Origin, what: Status | Discrepancy, why: str = ""
    ) -> None:
        """Adds one record with its status, or one discrepancy; `counts` are those of its partition."""
        counts.by[what] += 1
        self._add_finding(what, key, origin, why)

    def _add_finding(self, what: str, key: bytes | None, origin: Origin, why: str) -> None:
        if what not in self._problems:
            return
        findings = self._findings.setdefault(what, [])
        if len(findings) < self._max_findings:
            tenant, conversation_id = (None, None) if key is None else tenant_and_id(key) or (None, None)
            findings.append(Finding(str(what), tenant, conversation_id, origin, why))

    @property
    def partitions(self) -> list[tuple[tuple[str, int], PartitionCounts]]:
        """Counts by topic and partition, the input topics first and in their order."""
        rank = {topic: place for place, topic in enumerate(self.inputs)}
        return sorted(self._partitions.items(), key=lambda item: (rank.get(item[0][0], len(rank)), item[0]))

    @property
    def total(self) -> PartitionCounts:
        """The counts of all partitions together."""
        total = PartitionCounts()
        for counts in self._partitions.values():
            total.records += counts.records
            total.by.update(counts.by)
        return total

    @property
    def problems(self) -> dict[str, int]:
        """How often each problem occurred, the worst first; empty when everything is reconciled."""
        total = self.total
        return {str(what): total.by[what] for what in self._problems if total.by[what]}

    @property
    def findings(self) -> list[Finding]:
        """At most `max_findings`, the worst sort first."""
        findings = [finding for what in self._problems for finding in self._findings.get(what, [])]
        return findings[: self._max_findings]

    def check(self) -> None:
        """Raises Fatal when the audit's own sums do not add up: then it proves nothing."""
        sums = {
            "records by partition": all(counts.adds_up for counts in self._partitions.values()),
            "records by id": self.total.records == self.ids.total(),
            "rows": self.rows["read"] == self.rows.total() - self.rows["read"],
        }
        broken = [name for name, holds in sums.items() if not holds]
        if broken:
            raise Fatal("the audit's own sums do not add up", ", ".join(broken), "this is a bug: please report it")
