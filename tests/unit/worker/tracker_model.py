"""A model of the committed offsets: fetches, finishes, commits and rebalances in any order, against a reference.

Tracker, Assignment and Intake are the product's. The log, the broker and the reference are plain lists and sets.
"""

from collections import Counter
from collections.abc import Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.topics import TOPICS

TPS = (TopicPartition(TOPICS.conversations, 0), TopicPartition(TOPICS.rehomed, 0))
#: What may happen, and how often. An action that cannot do its own lets records be read.
ACTIONS = {
    "read": 6,
    "restart_reader": 2,
    "finish_any": 4,
    "finish_the_oldest": 4,
    "finish_the_newest": 2,
    "fail": 1,
    "come_too_late": 1,
    "commit": 5,
    "rebalance": 1,
}
#: With a number that tells which record, partition or outcome. One rule with one choice: choosing takes most time.
STEPS = [(action, which) for which in range(32) for action, weight in ACTIONS.items() for _ in range(weight)]


class Parts(NamedTuple):
    """The modules under test: the product's, or mutants of them."""

    offsets: ModuleType
    intake: ModuleType


@dataclass(slots=True)
class Partition:
    """The broker's side of one partition; `log` holds the offsets that have a record."""

    log: list[int] = field(default_factory=list)
    #: Offsets whose work is durable, whichever worker did it.
    done: set[int] = field(default_factory=set)
    committed: int = 0

    def records_from(self, offset: int, count: int, gap: int) -> list[int]:
        """The next records at or after the offset; at the log's end a new one, `gap` offsets behind the last."""
        if not self.log or self.log[-1] < offset:
            self.log.append((self.log[-1] + 1 if self.log else 0) + gap)
        return [record for record in self.log if record >= offset][:count]

    def take(self, offset: int) -> None:
        """A commit neither moves back nor passes a record that is not done."""
        assert offset >= self.committed, f"committed {offset} after {self.committed}"
        passed = [record for record in self.log if record < offset and record not in self.done]
        assert not passed, f"committed {offset}, unfinished are {passed}"
        self.committed = offset


@dataclass(slots=True, eq=False)
class Reading:
    """The reference for one partition in one assignment."""

    number: int
    tracker: Any
    next_offset: int
    admitted: list[int] = field(default_factory=list)
    finished: set[int] = field(default_factory=set)
    acknowledged: int | None = None

    @property
    def committable(self) -> int | None:
        """The offset after the last record of the unbroken finished run."""
        run = [*takewhile(self.finished.__contains__, self.admitted)]
        return run[-1] + 1 if run else None

    @property
    def due(self) -> int | None:
        """What is to be committed: the run's end, unless the broker is known to have it."""
        return None if self.committable == self.acknowledged else self.committable


class _Answer:
    """What a commit waits for; the machine sends the answer into the coroutine."""

    def __await__(self) -> Generator[None, bool, bool]:
        return (yield)


@dataclass(slots=True, eq=False)
class Commit:
    """A commit that the broker has decided about; its answer is still to come."""

    work: Coroutine[Any, Any, None]
    is_taken: bool
    offsets: list[tuple[Reading, int]]


class TrackerMachine(RuleBasedStateMachine):
    """`happened` counts steps and events over all machines that share it."""

    def __init__(self, parts: Parts, happened: Counter[str]) -> None:
        super().__init__()
        self.parts = parts
        self.happened = happened
        self.checks = 0
        # The analyst admits what it is given; the machine finishes it later.
        analyst = SimpleNamespace(take=self.take)
        life = SimpleNamespace(halted=None, fail=self.refused)
        needless: Any = None
        self.intake = parts.intake.Intake(needless, analyst, needless, {}, TOPICS, self.ask_broker, life)
        self.partitions = [Partition() for _ in TPS]
        self.generation = 0
        self.readings: list[Reading] = []
        self.ended: list[Any] = []  # assignments
        self.revoked: list[Reading] = []
        self.open: list[tuple[Reading, int]] = []
        self.finished: list[tuple[Reading, int]] = []
        self.pending: list[Commit] = []
        self.asked: Mapping[TopicPartition, int] = {}
        self.taken: list[int] = []
        self.failures: list[BaseException] = []
        self.assign(0)

    @rule(what=st.sampled_from(STEPS))
    def act(self, what: tuple[str, int]) -> None:
        action, which = what
        getattr(self, action)(which)

    # --- reading

    def read(self, which: int) -> None:
        if self.intake.current is None:
            self.assign(which % 4)
        reading = self.readings[which % len(TPS)]
        self.deliver(reading, reading.next_offset, which)

    def restart_reader(self, which: int) -> None:
        """A restarted reader delivers again what was still in the channel."""
        if self.intake.current is None or not self.open:
            self.read(which)
            return
        reading, offset = self.open[which % len(self.open)]
        self.deliver(reading, offset, which) if reading in self.readings else self.read(which)

    def deliver(self, reading: Reading, from_offset: int, which: int) -> None:
        records = self.partitions[reading.number].records_from(from_offset, 1 + which // 8, max(0, which % 8 - 4))
        new = [record for record in records if record >= reading.next_offset]
        assert self.taken_of(self.intake.current, reading.number, records) == new
        self.happened["read"] += bool(new)
        self.happened["read again"] += len(new) < len(records)
        self.happened["gap passed"] += bool(new) and new[0] > reading.next_offset
        if new:
            reading.next_offset = new[-1] + 1
            reading.admitted += new
            self.open += [(reading, offset) for offset in new]

    def taken_of(self, assignment: Any, number: int, records: list[int]) -> list[int]:
        """Returns what was taken of a fetch; in any case the reader is woken."""
        self.taken = []
        fetch = self.parts.intake.Fetch(assignment, {TPS[number]: [SimpleNamespace(offset=at) for at in records]})
        self.intake.process(fetch)
        assert fetch.is_taken.is_set()
        assert not self.failures, self.failures
        return self.taken

    def take(self, tracker: Any, records: list[Any], *, rehomed: bool) -> None:
        assert rehomed is (tracker.tp.topic == TOPICS.rehomed)
        self.taken = [record.offset for record in records]
        tracker.admit(self.taken)

    def refused(self, error: BaseException) -> None:
        self.failures.append(error)

    # --- finishing

    def finish_any(self, which: int) -> None:
        self.finish(which % len(self.open)) if self.open else self.read(which)

    def finish_the_oldest(self, which: int) -> None:
        self.finish(0) if self.open else self.read(which)

    def finish_the_newest(self, which: int) -> None:
        self.finish(-1) if self.open else self.read(which)

    def finish(self, at: int) -> None:
        reading, offset = self.open.pop(at)
        self.partitions[reading.number].done.add(offset)
        reading.tracker.finish(offset)
        is_late = reading not in self.readings
        self.happened["finished late" if is_late else "finished"] += 1
        if not is_late:
            reading.finished.add(offset)
            self.finished = [*self.finished[-3:], (reading, offset)]

    def fail(self, which: int) -> None:
        """The work broke off: this offset is never finished."""
        if not self.open:
            self.read(which)
        else:
            self.open.pop(which % len(self.open))
            self.happened["failed"] += 1

    def come_too_late(self, which: int) -> None:
        """An offset is admitted or finished twice, and a fetch of an ended assignment comes out of the channel."""
        if self.open:
            reading, offset = self.open[which % len(self.open)]
            assert self.raises(reading.tracker.admit, [offset])
        if self.finished:
            reading, offset = self.finished[which % len(self.finished)]
            assert self.raises(reading.tracker.finish, offset) is (reading in self.readings)
            self.happened["finished again"] += 1
        if self.revoked:
            reading = self.revoked[which % len(self.revoked)]
            assert self.raises(reading.tracker.admit, [reading.next_offset])
            assert self.taken_of(self.ended[-1], reading.number, [reading.next_offset]) == []
            self.happened["fetched late"] += 1

    def raises(self, call: Any, argument: Any) -> bool:
        try:
            call(argument)
        except ValueError:
            return True
        return False

    # --- committing

    async def ask_broker(self, generation: int, offsets: Mapping[TopicPartition, int]) -> bool:
        assert offsets, "a commit of nothing"
        assert generation == self.intake_generation
        self.asked = offsets
        return await _Answer()

    def commit(self, which: int) -> None:
        """The broker decides at once; its answer may come much later, or say that the commit was not taken."""
        if self.pending and which % 2:
            self.answer(self.pending.pop(0))
        elif self.intake.current is not None and len(self.pending) < 2:
            self.begin_commit(self.intake.current, which // 2)
        else:
            self.read(which)

    def begin_commit(self, assignment: Any, faults: int) -> Commit | None:
        """With bit 0 of `faults` the broker refuses; with bit 1 the response to an accepted commit is lost."""
        wanted = {TPS[reading.number]: reading.due for reading in self.readings if reading.due is not None}
        self.asked, self.intake_generation = {}, assignment.generation
        work = self.intake.commit(assignment)
        has_ended = self.has_ended(work, None)
        assert self.asked == wanted
        assert has_ended is not bool(wanted)
        if has_ended:
            return None
        is_taken = not faults & 1 and assignment.generation == self.generation
        if is_taken:
            for tp, offset in wanted.items():
                self.partitions[TPS.index(tp)].take(offset)
        self.happened["commit" if is_taken else "commit refused"] += 1
        self.happened["commit answer lost"] += is_taken and bool(faults & 2)
        offsets = [(reading, reading.due) for reading in self.readings if reading.due is not None]
        self.pending.append(Commit(work, is_taken and not faults & 2, offsets))
        return self.pending[-1]

    def answer(self, commit: Commit) -> None:
        assert self.has_ended(commit.work, commit.is_taken)
        if commit.is_taken:
            for reading, offset in commit.offsets:
                reading.acknowledged = offset
                self.happened["commit answered late"] += reading not in self.readings

    def has_ended(self, work: Coroutine[Any, Any, None], answer: bool | None) -> bool:
        try:
            work.send(answer)  # type: ignore[arg-type]
        except StopIteration:
            return True
        return False

    # --- rebalances

    def rebalance(self, which: int) -> None:
        if self.intake.current is None:
            self.assign(which % 4)
        elif which % 3 == 0:
            # The session has timed out: the generation moves on before this worker learns of it.
            self.generation += 1
            self.happened["fenced"] += 1
        else:
            self.revoke(commits=which % 3 == 1)

    def revoke(self, *, commits: bool) -> None:
        """As Rebalance does: no new fetch, the last commit, then the trackers are revoked."""
        assignment = self.intake.end()
        assert (self.intake.current, assignment.is_open) == (None, False)
        if commits and (commit := self.begin_commit(assignment, 0)) is not None:
            self.pending.remove(commit)
            self.answer(commit)
        assignment.revoke()
        self.ended.append(assignment)
        self.revoked = [*self.revoked[-3:], *self.readings]
        self.readings = []
        self.happened["revoked"] += 1

    def assign(self, committed_by_another: int) -> None:
        """Reading begins at the committed offset, which another worker may have moved meanwhile."""
        self.generation += 1
        self.intake.current = assignment = self.parts.intake.Assignment(TPS, self.generation)
        for number, partition in enumerate(self.partitions):
            for record in [record for record in partition.log if record >= partition.committed][:committed_by_another]:
                partition.done.add(record)
                partition.take(record + 1)
            tracker = self.parts.offsets.Tracker(TPS[number], partition.committed)
            assignment.trackers[TPS[number]] = tracker
            self.readings.append(Reading(number, tracker, partition.committed))
        self.happened["assigned"] += 1

    # --- always

    @invariant()
    def offsets_are_those_of_the_reference(self) -> None:
        self.happened["steps"] += self.checks > 0  # also called before the first step
        self.checks += 1
        for reading in self.readings:
            tracker = reading.tracker
            assert (tracker.next, tracker.committable) == (reading.next_offset, reading.committable)
            assert (tracker.due(), tracker.is_revoked) == (reading.due, False)
        for reading in self.revoked:
            assert (reading.tracker.due(), reading.tracker.is_revoked) == (None, True)

    def teardown(self) -> None:
        for commit in self.pending:
            commit.work.close()
