"""What offsets must be, kept the plainest way: the reference of tests/unit/pipeline/tracker_model.py."""

from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any


@dataclass(slots=True)
class Reading:
    """The reference for one partition in one assignment."""

    tracker: Any
    next_offset: int
    admitted: list[int] = field(default_factory=list)
    finished: set[int] = field(default_factory=set)
    acknowledged: int | None = None
    is_hole_known: bool = False

    @property
    def prefix_end(self) -> int | None:
        """The offset after the last record of the unbroken finished run."""
        run = [*takewhile(self.finished.__contains__, self.admitted)]
        return run[-1] + 1 if run else None

    @property
    def due(self) -> int | None:
        """What is to be committed: the run's end, unless the committer was told that the broker has it."""
        end = self.prefix_end
        return None if end == self.acknowledged else end

    @property
    def oldest_open(self) -> float | None:
        """Time stamp of the first unfinished record: in the model it is the offset."""
        return next((float(offset) for offset in self.admitted if offset not in self.finished), None)


@dataclass(slots=True)
class Partition:
    """The broker's side of one partition; what stands at `log` are the records, between them are holes."""

    log: list[int] = field(default_factory=list)
    position: int = 0  # of the next fetch, as an index into the log
    done: set[int] = field(default_factory=set)  # offsets whose work is durable, whoever did it
    committed: int = 0

    def fetch(self, gap: int) -> int:
        """The record at the position; at the log's end a new one, `gap` offsets behind the last."""
        if self.position >= len(self.log):
            self.position = len(self.log)
            self.log.append((self.log[-1] + 1 if self.log else 0) + gap)
        self.position += 1
        return self.log[self.position - 1]

    def first_at(self, offset: int) -> int | None:
        """Where the first record at or after an offset stands."""
        return next((record for record in self.log if record >= offset), None)

    def take(self, offset: int) -> None:
        """A commit: it neither goes back nor passes a record that nobody has finished."""
        assert offset >= self.committed, f"committed {offset} after {self.committed}"
        passed = [record for record in self.log if record < offset and record not in self.done]
        assert not passed, f"committed {offset}, unfinished are {passed}"
        self.committed = offset
