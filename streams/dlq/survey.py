"""What stands in the dead letters: counts, and the newest letters without what they hold."""

import heapq
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from streams.dlq.ledger import Mark
from streams.dlq.letter import Letter, LetterId
from streams.dlq.selection import Selection, Verdict


@dataclass(slots=True)
class Survey:
    """Counts of letters. `unresolved` ones wait for somebody, by reason; of them `to_send` would be sent by a replay,
    `too_often` have been sent often enough, and `foreign` ones were written by somebody else."""

    unresolved: Counter[str] = field(default_factory=Counter)
    to_send: Counter[str] = field(default_factory=Counter)
    too_often: int = 0
    foreign: int = 0
    replayed: int = 0
    filtered: int = 0

    def count(self, letter: Letter, verdict: Verdict) -> None:
        """Takes one letter in."""
        self.filtered += verdict is Verdict.FILTERED
        self.replayed += verdict is Verdict.REPLAYED
        self.too_often += verdict is Verdict.TOO_OFTEN
        self.foreign += verdict is Verdict.FOREIGN
        if verdict is Verdict.WAITING:
            self.to_send[letter.reason] += 1
        if verdict not in (Verdict.FILTERED, Verdict.REPLAYED):
            self.unresolved[letter.reason] += 1


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
    found: AsyncIterator[Letter], selection: Selection, newest: Newest | None = None, *, with_replayed: bool = False
) -> Survey:
    """Reads the letters once. `newest` collects those that wait, and the replayed ones too where they are wanted."""
    survey = Survey()
    async for letter in found:
        verdict = selection.verdict(letter)
        survey.count(letter, verdict)
        is_listed = verdict is not Verdict.FILTERED and (with_replayed or verdict is not Verdict.REPLAYED)
        if newest is not None and is_listed:
            newest.add(letter, selection.ledger.mark_of(letter))
    return survey
