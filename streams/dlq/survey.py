"""What stands in the dead letters: counts, and the newest letters without what they hold."""

import heapq
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from streams.dlq.filters import Filters
from streams.dlq.ledger import Ledger, Mark
from streams.dlq.letter import Letter, LetterId


@dataclass(slots=True)
class Survey:
    """Counts of the letters that match: `waiting` for a replay by reason, `replayed` already, and, among the waiting,
    `foreign` ones that cannot be replayed because somebody else wrote them."""

    waiting: Counter[str] = field(default_factory=Counter)
    replayed: int = 0
    foreign: int = 0

    def count(self, letter: Letter, mark: Mark | None) -> None:
        """Takes one matching letter in."""
        if mark is not None:
            self.replayed += 1
            return
        self.waiting[letter.reason] += 1
        self.foreign += letter.origin is None

    @property
    def to_replay(self) -> int:
        """How many a replay would send."""
        return self.waiting.total() - self.foreign


@dataclass(frozen=True, slots=True)
class Entry:
    """A listed letter: everything but its value and headers; `mark` is set where it has been replayed."""

    letter: Letter
    size_bytes: int
    mark: Mark | None


class Newest:
    """The `limit` letters that died last, newest first; memory is bounded by the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[datetime, LetterId, Entry]] = []

    def add(self, letter: Letter, mark: Mark | None) -> None:
        """Keeps the letter, without its value and headers, if it is among the newest so far."""
        if len(self._heap) == self._limit and (letter.at, letter.id) < self._heap[0][:2]:
            return
        entry = Entry(replace(letter, value=None, headers=[]), letter.size_bytes, mark)
        push = heapq.heappushpop if len(self._heap) == self._limit else heapq.heappush
        push(self._heap, (letter.at, letter.id, entry))

    def entries(self) -> list[Entry]:
        """Newest first; of the same moment, the later place first."""
        return [entry for _, _, entry in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


async def survey_of(
    found: AsyncIterator[Letter],
    filters: Filters,
    ledger: Ledger,
    newest: Newest | None = None,
    *,
    with_replayed: bool = False,
) -> Survey:
    """Reads the letters once. `newest` collects those that wait, and the replayed ones too where they are wanted."""
    survey = Survey()
    async for letter in found:
        if not filters.match(letter):
            continue
        mark = ledger.mark_of(letter)
        survey.count(letter, mark)
        if newest is not None and (with_replayed or mark is None):
            newest.add(letter, mark)
    return survey
