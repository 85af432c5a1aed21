"""The join: what was found of each conversation, told as ends of records and as inventions. Pure; does no I/O.

**What balances.** A record is an origin, a place in `conversations` (or in `conversations.rehomed`, when somebody else
wrote there). It is *due* once it and every copy of it on its way home stand below the group's committed offset; until
then it is `pending`, whatever it left behind so far. Every due record has exactly one end:

- `analysed`, `cached`, `filtered`: the row of its tenant and id tells of this origin, and an event of this origin is
  there; no letter of this origin is newer than the row (an older one is an attempt before a crash: `overtaken`).
- `dead`: a letter of this origin, and the dead row of its tenant and id, which no event contradicts. The letter alone
  is enough where no id could be read or Postgres takes no such row.
- `repeated`: it left an event or a letter, and the row of its tenant and id tells of another record that is not older:
  the id was posted several times, or its letter was replayed.
- otherwise it is `missing`, `incomplete` (a row without its event, a dead one without its letter) or `contradictory`.

In the other direction, whatever was left behind has a record: a row, letter, copy or event of none is `invented`.
Where retention has taken the record, or it is newer than the look, that cannot be said, and is counted as such; an
event always needs a row. Where retention has cut the topics of letters and events, they hold for certain only what
later records left (wholeness.py): of an older one the absence of both proves nothing, and it is counted as `unchecked`.
So are records that were removed while the group had committed nothing. Those that were removed when the group had not
come that far are `lost`; offsets that the group committed and the log never had are `ahead`.

So, in each partition:  records = pending + analysed + cached + filtered + dead + repeated
                                + missing + incomplete + contradictory,
in all:                 records = distinct ids + further records of an id + records without an id that can be read,
and of the rows:        rows    = rows of records + beyond retention + later + invented.
The books balance when missing, lost, ahead, incomplete, contradictory and invented are 0; for the strict, pending and
unchecked too.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from operator import attrgetter

from schemas.kafka import Origin
from streams.audit.books import ELSEWHERE, Books, Line
from streams.audit.ends import Traces, end_of
from streams.audit.entries import Entry, Kind, name_of
from streams.audit.holdings import Holdings, Whereabouts
from streams.audit.wholeness import Whole

_KEY = attrgetter("key")
_PLACE = attrgetter("topic", "partition", "offset")


class Judge:
    """Fills `books`. Holds one origin's traces at a time, however many entries there are and of whatever ids."""

    def __init__(self, books: Books, holdings: Holdings, whole: Whole) -> None:
        self._books = books
        self._holdings = holdings
        self._whole = whole

    def judge(self, entries: Iterable[Entry]) -> None:
        """Takes the entries in the workbook's order."""
        for key, found in groupby(entries, key=_KEY):
            self._conversation(key, found)

    def _conversation(self, key: bytes, found: Iterator[Entry]) -> None:
        first = next(found)
        row = first if first.kind == Kind.ROW else None
        others = found if row is not None else chain([first], found)
        records, has_record = 0, False
        for place, entries in groupby(others, key=_PLACE):
            traces = Traces.of(Origin(*place), entries)
            self._count(traces)
            if traces.is_record:
                records += 1
                has_record = has_record or (row is not None and row.place == traces.place)
                self._record(key, traces, row)
            else:
                self._strays(key, traces, row)
        if row is not None:
            self._row(key, row, has_record=has_record)
        self._count_ids(key, records)

    def _record(self, key: bytes, traces: Traces, row: Entry | None) -> None:
        if not traces.records:
            self._line(traces.place).read += 1
            self._without_record(key, traces.place, "a copy sent home of a record that was not there")
        end, why, is_unchecked = end_of(traces, row, self._whole, has_id=name_of(key) is not None)
        self._books.letters["overtaken"] += traces.is_overtaken_by(row)
        self._books.ended(self._line(traces.place), key, traces.place, end, why, is_unchecked=is_unchecked)

    def _strays(self, key: bytes, traces: Traces, row: Entry | None) -> None:
        """Letters and events whose record was not met among those of the conversation."""
        if traces.letters:
            self._without_record(key, traces.place, "a letter of no such record")
        if traces.events and row is None:
            self._invent(key, traces.place, "an event, but neither record nor row")
        elif traces.events:
            self._without_record(key, traces.place, "an event of no such record")

    def _row(self, key: bytes, row: Entry, *, has_record: bool) -> None:
        if has_record:
            self._books.rows["of_records"] += 1
            return
        match self._holdings.where(row.place):
            case Whereabouts.REMOVED:
                self._books.rows["beyond_retention"] += 1
            case Whereabouts.LATER:
                self._books.rows["later"] += 1
            case Whereabouts.HELD | Whereabouts.NOWHERE:
                self._books.rows["invented"] += 1
                self._invent(key, row.place, "a row of no such record")

    def _without_record(self, key: bytes, place: Origin, why: str) -> None:
        """Invented, unless the absence of the record means nothing."""
        match self._holdings.where(place):
            case Whereabouts.HELD | Whereabouts.NOWHERE:
                self._invent(key, place, why)
            case Whereabouts.REMOVED:
                self._books.beyond_retention += 1
            case Whereabouts.LATER:
                pass  # it is the next audit's

    def _invent(self, key: bytes, place: Origin, why: str) -> None:
        self._books.invented(self._line(place), key, place, why)

    def _line(self, place: Origin) -> Line:
        """One for all places that there are not: rows and headers of foreign hands may name any number of them."""
        is_known = self._holdings.knows(place.topic, place.partition)
        return self._books.line(*((place.topic, place.partition) if is_known else ELSEWHERE))

    def _count(self, traces: Traces) -> None:
        for counts, number in (
            (self._books.copies, traces.copies),
            (self._books.letters, traces.letters),
            (self._books.events, traces.events),
        ):
            counts["repeated"] += max(0, number - 1)

    def _count_ids(self, key: bytes, records: int) -> None:
        if name_of(key) is None:
            self._books.ids["nameless"] += records
        elif records:
            self._books.ids["distinct"] += 1
            self._books.ids["repeats"] += records - 1
