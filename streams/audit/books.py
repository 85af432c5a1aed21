"""Books: how many records ended how, per partition and in all, and which did not. Pure; bounded, whatever is wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from schemas.errors import Fatal
from schemas.kafka import Origin
from streams.audit.entries import name_of
from streams.audit.standing import Standing

#: Where what is invented claims to come from when there is no such partition.
ELSEWHERE = ("elsewhere", -1)


class End(StrEnum):
    """Where a record stands; every record that the topics hold has exactly one of these."""

    PENDING = "pending"  # not yet due: the group has not committed it
    ANALYSED = "analysed"
    CACHED = "cached"
    FILTERED = "filtered"
    DEAD = "dead"
    REPEATED = "repeated"  # it ended, and its id's row tells of another record of that id
    MISSING = "missing"  # committed, yet it left no end behind
    INCOMPLETE = "incomplete"  # a row without its event, or a dead one without its letter
    CONTRADICTORY = "contradictory"  # two ends


#: What is no end of a record: INVENTED ones are none; LOST ones were removed before the group read them; AHEAD are
#: offsets that the group committed and the log does not have; of UNCHECKED ones retention may have taken the proof.
INVENTED = "invented"
LOST = "lost"
AHEAD = "ahead"
UNCHECKED = "unchecked"
#: What is wrong, the worst first.
WRONG = (End.MISSING.value, LOST, AHEAD, End.CONTRADICTORY.value, End.INCOMPLETE.value, INVENTED)
#: What is not proven, and wrong for the strict.
UNPROVEN = (End.PENDING.value, UNCHECKED)


class Fault(NamedTuple):
    """One thing that is wrong; `tenant` and `id` are None where no id can be read."""

    what: str
    tenant: str | None
    id: str | None
    place: Origin
    why: str


@dataclass(slots=True)
class Line:
    """One partition's counts; `read` is what the log holds, `ends` is how it was judged, `besides` what is no end."""

    read: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    besides: Counter[str] = field(default_factory=Counter)

    @property
    def adds_up(self) -> bool:
        return self.read == self.ends.total()


class Books:
    """Filled by the reading (`read_*`) and by the judge; at most `show` faults of each sort are kept.

    `inputs` are the topics that the workers consume, in the order of the report. `strict` makes what is still pending,
    and what cannot be checked, a fault.
    """

    def __init__(self, inputs: Sequence[str], show: int, *, strict: bool = False) -> None:
        self.inputs = inputs
        self._show = show
        self._kept: dict[str, list[Fault]] = {}
        self.strict = strict
        self.lines: dict[tuple[str, int], Line] = {}
        #: Of the records: distinct ids, further records of an id, and those in which no id can be read.
        self.ids: Counter[str] = Counter(distinct=0, repeats=0, nameless=0)
        self.rows: Counter[str] = Counter(read=0, of_records=0, beyond_retention=0, later=0, invented=0)
        #: `repeated` ones are what a crash between delivery and commit leaves behind: counted, and no fault.
        self.copies: Counter[str] = Counter(read=0, repeated=0)
        self.letters: Counter[str] = Counter(read=0, repeated=0, overtaken=0)
        self.events: Counter[str] = Counter(read=0, repeated=0)
        self.replayed = 0
        self.beyond_retention = 0

    def line(self, topic: str, partition: int) -> Line:
        """The partition's line, new where there was none."""
        return self.lines.setdefault((topic, partition), Line())

    def stands(self, topic: str, partition: int, standing: Standing) -> None:
        """Where the group stands in one partition of the input topics."""
        for what, count, why in (
            (LOST, standing.lost, "removed by retention before the group read them: {} from here on"),
            (AHEAD, standing.ahead, "committed, but the log ends {} before: made anew, or offsets of another cluster"),
            (UNCHECKED, standing.unchecked, "removed, and the group has committed nothing: {} up to the log's begin"),
        ):
            if count:
                self.line(topic, partition).besides[what] += count
                self._keep(what, None, Origin(topic, partition, standing.committed or 0), why.format(count))

    def ended(self, line: Line, key: bytes, place: Origin, end: End, why: str, *, is_unchecked: bool = False) -> None:
        """One record was judged; `line` is that of its partition."""
        line.ends[end] += 1
        self._keep(end.value, key, place, why)
        if is_unchecked:
            line.besides[UNCHECKED] += 1
            self._keep(UNCHECKED, key, place, "retention may have taken its event or letter")

    def invented(self, line: Line, key: bytes, place: Origin, why: str) -> None:
        """A row, letter, copy or event of no record."""
        line.besides[INVENTED] += 1
        self._keep(INVENTED, key, place, why)

    def _keep(self, what: str, key: bytes | None, place: Origin, why: str) -> None:
        if what not in self._wrong:
            return
        kept = self._kept.setdefault(what, [])
        if len(kept) < self._show:
            tenant, conversation_id = (None, None) if key is None else name_of(key) or (None, None)
            kept.append(Fault(what, tenant, conversation_id, place, why))

    @property
    def in_order(self) -> list[tuple[tuple[str, int], Line]]:
        """Lines as they are shown: the conversations by partition, then what came by other ways."""
        return sorted(self.lines.items(), key=lambda item: (self._rank(item[0][0]), item[0]))

    @property
    def total(self) -> Line:
        """All lines in one."""
        total = Line()
        for line in self.lines.values():
            total.read += line.read
            total.ends.update(line.ends)
            total.besides.update(line.besides)
        return total

    @property
    def wrong(self) -> dict[str, int]:
        """How often each fault was met, the worst first; nothing for a sort that was not."""
        total = self.total
        counts = total.ends + total.besides
        return {what: counts[what] for what in self._wrong if counts[what]}

    @property
    def _wrong(self) -> tuple[str, ...]:
        return (*WRONG, *UNPROVEN) if self.strict else WRONG

    @property
    def unchecked(self) -> int:
        """Records of which it cannot be said whether they ended as they must."""
        return self.total.besides[UNCHECKED]

    @property
    def balance(self) -> bool:
        """True when nothing at all is wrong."""
        return not self.wrong

    @property
    def faults(self) -> list[Fault]:
        """At most `show`, the worst sort first."""
        return [fault for what in self._wrong for fault in self._kept.get(what, [])][: self._show]

    def check(self) -> None:
        """Raises Fatal when the audit's own sums do not add up, for then it proves nothing."""
        total = self.total
        sums = {
            "records by partition": all(line.adds_up for line in self.lines.values()),
            "records by id": total.read == self.ids["distinct"] + self.ids["repeats"] + self.ids["nameless"],
            "rows": self.rows["read"] == sum(self.rows.values()) - self.rows["read"],
        }
        broken = [name for name, holds in sums.items() if not holds]
        if broken:
            raise Fatal(
                "the audit's own sums do not add up", ", ".join(broken), "please report it: this is a defect of ours"
            )

    def _rank(self, topic: str) -> int:
        return self.inputs.index(topic) if topic in self.inputs else len(self.inputs)
