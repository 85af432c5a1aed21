"""How one record ended, by what was found of its origin and by its conversation's row. Pure; judge.py has the rules."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

from schemas.kafka import Origin
from schemas.outcome import OUTCOME_NAMES
from streams.audit.books import End
from streams.audit.entries import Entry, Kind
from streams.audit.wholeness import Whole

_DEAD = OUTCOME_NAMES.index("dead")
_NO_TIME_YET = 2**63 - 1


class Judged(NamedTuple):
    """`why` says what is wrong, "" where nothing is; `is_unchecked` where an absence had to be believed."""

    end: End
    why: str = ""
    is_unchecked: bool = False


@dataclass(slots=True)
class Traces:
    """What was found of one origin; times are microseconds since 1970."""

    place: Origin
    records: int = 0
    copies: int = 0
    letters: int = 0
    events: int = 0
    is_due: bool = True
    is_rowless: bool = False
    occurred_us: int = 0
    written_us: int = _NO_TIME_YET
    lettered_us: int = 0

    @classmethod
    def of(cls, place: Origin, entries: Iterable[Entry]) -> Self:
        """Takes the entries one by one; a row is none of them."""
        traces = cls(place)
        for entry in entries:
            traces._take(entry)
        return traces

    def _take(self, entry: Entry) -> None:
        match entry.kind:
            case Kind.RECORD | Kind.COPY:
                self.records += entry.kind == Kind.RECORD
                self.copies += entry.kind == Kind.COPY
                self.is_due = self.is_due and bool(entry.state)
                self.occurred_us = entry.occurred_us
                self.written_us = min(self.written_us, entry.made_us)
            case Kind.LETTER:
                self.letters += 1
                self.is_rowless = self.is_rowless or bool(entry.state)
                self.lettered_us = max(self.lettered_us, entry.made_us)
            case Kind.EVENT:
                self.events += 1

    @property
    def is_record(self) -> bool:
        """False for letters and events alone; a copy stands for a record that retention has taken."""
        return self.records + self.copies > 0

    def ended_after_us(self, row: Entry) -> int:
        """A producer may stamp its records with any time to come; the record's own row has the worker's."""
        return min(self.written_us, row.made_us)

    def is_overtaken_by(self, row: Entry | None) -> bool:
        """Whether the record died, and on being read again after a crash did not."""
        if row is None or row.place != self.place or row.state == _DEAD:
            return False
        return self.letters > 0 and self.lettered_us < row.made_us


def end_of(traces: Traces, row: Entry | None, whole: Whole, *, has_id: bool) -> Judged:
    """`row` is that of the record's conversation, None where there is none; `has_id` says whether there can be one."""
    if not traces.is_due:
        return Judged(End.PENDING, "not yet committed")
    if row is None:
        return _without_row(traces) if has_id else _nameless(traces, whole)
    if row.place != traces.place:
        return _beside_row(traces, row, whole)
    return _with_dead_row(traces, row, whole) if row.state == _DEAD else _with_living_row(traces, row, whole)


def _nameless(traces: Traces, whole: Whole) -> Judged:
    """There is neither row nor event without an id."""
    if traces.letters:
        return Judged(End.DEAD)
    if whole.has_letters_of(traces.written_us):
        return Judged(End.MISSING, "no id can be read, and there is no letter")
    return Judged(End.DEAD, is_unchecked=True)


def _without_row(traces: Traces) -> Judged:
    if traces.events:
        return Judged(End.MISSING, "an event, but no row")
    if traces.is_rowless:
        return Judged(End.DEAD)
    return Judged(End.MISSING, "a letter, but no row" if traces.letters else "neither row nor letter")


def _beside_row(traces: Traces, row: Entry, whole: Whole) -> Judged:
    """The row tells of another record of the same id."""
    if traces.is_rowless:
        return Judged(End.DEAD)
    if traces.occurred_us > row.occurred_us:
        return Judged(End.MISSING, "the row tells of an older record of the id")
    if traces.letters or traces.events:
        return Judged(End.REPEATED)
    if whole.has_letters_of(traces.written_us) and whole.has_events_of(traces.written_us):
        return Judged(End.MISSING, "neither event nor letter, and the row tells of another record of the id")
    return Judged(End.REPEATED, is_unchecked=True)


def _with_dead_row(traces: Traces, row: Entry, whole: Whole) -> Judged:
    if traces.events:
        return Judged(End.CONTRADICTORY, "the row says dead, an event says otherwise")
    if traces.letters:
        return Judged(End.DEAD)
    if whole.has_letters_of(traces.ended_after_us(row)):
        return Judged(End.INCOMPLETE, "the row says dead, but there is no letter")
    return Judged(End.DEAD, is_unchecked=True)


def _with_living_row(traces: Traces, row: Entry, whole: Whole) -> Judged:
    outcome = OUTCOME_NAMES[row.state]
    if traces.letters and not traces.is_overtaken_by(row):
        return Judged(End.CONTRADICTORY, f"the row says {outcome}, a later letter says dead")
    if traces.events:
        return Judged(End(outcome))
    if whole.has_events_of(traces.ended_after_us(row)):
        return Judged(End.INCOMPLETE, f"the row says {outcome}, but there is no event")
    return Judged(End(outcome), is_unchecked=True)
