"""Selection: what a run does with a letter, and why it leaves one out. Pure."""

from dataclasses import dataclass
from enum import Enum, auto

from streams.dlq.filters import Filters
from streams.dlq.ledger import Ledger
from streams.dlq.letter import Letter

#: A record that died again after so many replays will die once more; somebody has to look at it first.
MAX_REPLAYS = 3


class Verdict(Enum):
    """WAITING is sent; of the others all but FILTERED and REPLAYED wait for somebody too."""

    WAITING = auto()
    FILTERED = auto()
    REPLAYED = auto()
    TOO_OFTEN = auto()
    FOREIGN = auto()


@dataclass(frozen=True, slots=True)
class Selection:
    """With `again`, neither a mark nor the number of earlier replays keeps a letter back."""

    filters: Filters
    ledger: Ledger
    again: bool = False

    def verdict(self, letter: Letter) -> Verdict:
        """One for each letter; a foreign one, written by somebody else, cannot be sent at all."""
        if not self.filters.match(letter):
            return Verdict.FILTERED
        if letter.origin is None:
            return Verdict.FOREIGN
        if self.again:
            return Verdict.WAITING
        if self.ledger.mark_of(letter) is not None:
            return Verdict.REPLAYED
        return Verdict.TOO_OFTEN if letter.replays >= MAX_REPLAYS else Verdict.WAITING
