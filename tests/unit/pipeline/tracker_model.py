"""The offsets as a model: readings, finishes, commits and rebalances in any order, against the contiguous prefix.

Tracker, Assignment and Committer are the product's; the log, the broker and the reference are plain lists and sets.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Collection, Coroutine, Generator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from faust.types import TP
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.pipeline.offsets_reference import Partition, Reading

TPS = (TP("conversations", 0), TP("conversations.rehomed", 0))
#: What may happen, and how often. Each can always act: what cannot do its own lets a record be read.
ACTIONS = {
    "read": 6,
    "seek_or_lose": 2,
    "finish_any": 4,
    "finish_the_oldest": 4,
    "finish_the_newest": 2,
    "fail": 1,
    "come_too_late": 1,
    "commit": 5,
    "rebalance": 1,
}
#: With a number that tells which record, partition, outcome. One rule with one choice: choosing is most of the time.
STEPS = [(action, which) for which in range(32) for action, weight in ACTIONS.items() for _ in range(weight)]


class Parts(NamedTuple):
    """The modules that are tested: the product's, or mutants of them."""

    offsets: ModuleType
    assignment: ModuleType
    committer: ModuleType


class _Answer(Awaitable[Collection[TP]]):
    """What a commit waits for; the machine sends the answer into the coroutine."""

    def __await__(self) -> Generator[None, Collection[TP], Collection[TP]]:
        return (yield)


class TrackerMachine(RuleBasedStateMachine):
    """`happened` counts steps and events over all machines that share it."""

    def __init__(self, parts: Parts, happened: Counter[str]) -> None:
        super().__init__()
        self.verdict = parts.offsets.Verdict
        self.assignment = parts.assignment.Assignment()
        self.committer = parts.committer.Committer(self.assignment, self.ask_broker)
        self.happened = happened
        self.checks = 0
        self.partitions = [Partition() for _ in TPS]
        self.generation = 1
        self.is_fenced = False  # the group has gone on without us, and we do not know it yet
        self.readings: dict[int, Reading] = {}
        self.revoked: list[tuple[int, Reading]] = []
        self.open: list[tuple[int, Reading, Any]] = []
        self.ended: list[tuple[Reading, Any]] = []
        self.asked: Mapping[TP, int] | None = None
        self.committing: Coroutine[Any, Any, None] | None = None
        self.answer: Mapping[TP, tuple[Reading, int]] = {}

    @rule(what=st.sampled_from(STEPS))
    def act(self, what: tuple[str, int]) -> None:
        action, which = what
        getattr(self, action)(which)

    # --- reading ---

    def read(self, which: int) -> None:
        if not self.is_current:
            self.come_back(which)
        else:
            number, gap = which % len(TPS), max(0, which // len(TPS) % 8 - 4)
            self.deliver(number, self.partitions[number].fetch(gap))

    def seek_or_lose(self, which: int) -> None:
        """The next fetch is of an earlier record, or records are fetched and dropped on the way, as in a rebalance."""
        partition, records = self.partitions[which % len(TPS)], which // len(TPS) % 8
        if records < 5:
            partition.position = max(0, partition.position - records)
        for _ in range(records - 4):
            partition.fetch(0)
        self.read(which)

    def deliver(self, number: int, offset: int) -> None:
        """As the pump does: a jump is believed only if the log has the hole, else what was skipped is read again."""
        partition, reading = self.partitions[number], self.reading(number)
        tracker, wanted = reading.tracker, partition.first_at(reading.next_offset)
        verdict = tracker.judge(offset)
        assert verdict is self.verdict_of(reading, offset, wanted)
        self.happened[f"verdict {verdict.name}"] += 1
        if verdict is self.verdict.JUMP:
            assert wanted is not None, "what has come stands in the log"
            if not reading.is_hole_known:
                tracker.confirm_hole(wanted)
                reading.is_hole_known = True
                assert (tracker.is_hole_known, tracker.expected) == (True, reading.next_offset)
                verdict = tracker.judge(offset)
                assert verdict is self.verdict_of(reading, offset, wanted)
        if verdict is self.verdict.JUMP:
            assert self.is_refused(tracker, offset)
            partition.position = bisect_left(partition.log, reading.next_offset)
        elif verdict is self.verdict.REPEAT:
            assert self.is_refused(tracker, offset)
        else:
            self.admit(number, reading, offset)

    def verdict_of(self, reading: Reading, offset: int, wanted: int | None) -> Any:
        if offset < reading.next_offset:
            return self.verdict.REPEAT
        is_believed = offset == reading.next_offset or (reading.is_hole_known and offset == wanted)
        return self.verdict.NEXT if is_believed else self.verdict.JUMP

    def admit(self, number: int, reading: Reading, offset: int) -> None:
        self.happened["hole passed"] += offset != reading.next_offset
        slot = reading.tracker.admit(offset, float(offset))
        assert (slot.offset, slot.finished) == (offset, False)
        reading.admitted.append(offset)
        reading.next_offset, reading.is_hole_known = offset + 1, False
        self.open.append((number, reading, slot))

    def is_refused(self, tracker: Any, offset: int) -> bool:
        """Whether admitting raises, as it must for what is not the next record or comes too late."""
        before = tracker.expected
        try:
            tracker.admit(offset, 0.0)
        except ValueError:
            return bool(tracker.expected == before)
        return False

    def reading(self, number: int) -> Reading:
        """Opened by an assignment's first record, at the committed offset."""
        if number not in self.readings:
            start = self.partitions[number].committed
            self.readings[number] = Reading(self.assignment.open((TPS[number], self.generation), start), start)
        return self.readings[number]

    @property
    def is_current(self) -> bool:
        return bool(self.assignment.is_open) and not self.is_fenced

    # --- finishing ---

    def finish_any(self, which: int) -> None:
        self.finish(which % len(self.open)) if self.open else self.read(which)

    def finish_the_oldest(self, which: int) -> None:
        self.finish(0) if self.open else self.read(which)

    def finish_the_newest(self, which: int) -> None:
        self.finish(-1) if self.open else self.read(which)

    def finish(self, at: int) -> None:
        number, reading, slot = self.open.pop(at)
        self.partitions[number].done.add(slot.offset)
        reading.tracker.finish(slot)
        is_late = reading is not self.readings.get(number)
        self.happened["late ack" if is_late else "ack"] += 1
        if not is_late:
            reading.finished.add(slot.offset)
        assert slot.finished is not is_late
        self.ended = [*self.ended[-3:], (reading, slot)]

    def fail(self, which: int) -> None:
        """The work broke off: nobody will ever finish this slot."""
        if not self.open:
            self.read(which)
        else:
            self.open.pop(which % len(self.open))
            self.happened["failed"] += 1

    def come_too_late(self, which: int) -> None:
        """An ack that came before, and a record that was waited for while its assignment ended."""
        if self.ended:
            reading, slot = self.ended[which % len(self.ended)]
            reading.tracker.finish(slot)
            self.happened["ack again"] += 1
        if self.revoked:
            _, reading = self.revoked[which % len(self.revoked)]
            assert self.is_refused(reading.tracker, reading.next_offset)
            self.happened["late admit"] += 1

    # --- committing ---

    async def ask_broker(self, offsets: Mapping[TP, int]) -> Collection[TP]:
        self.asked = offsets
        return await _Answer()

    def commit(self, which: int) -> None:
        """Asked for and decided by the broker at once; what it says may be heard much later, or never."""
        if self.committing is not None:
            self.hear_of_the_commit()
        else:
            self.ask_for_a_commit(which)

    def ask_for_a_commit(self, fate: int) -> None:
        wanted = self.due_now()
        self.asked, self.committing = None, self.committer.commit_due(self.generation)
        if self.goes_on(None):
            self.decide(wanted, fate)
        else:
            assert not wanted, f"{wanted} was due and not committed"

    def decide(self, wanted: Mapping[TP, int], fate: int) -> None:
        """Bits 0 and 1 of the fate are the partitions that the broker refuses, 2 and 3 together lose its answer."""
        assert self.asked == wanted != {}
        taken = {tp: offset for bit, (tp, offset) in enumerate(wanted.items()) if not fate >> bit & 1}
        for tp, offset in taken.items():
            self.partitions[TPS.index(tp)].take(offset)
        is_lost = fate >> 2 & 3 == 3
        self.answer = {} if is_lost else {tp: (self.readings[TPS.index(tp)], at) for tp, at in taken.items()}
        self.happened["commit"] += bool(taken)
        self.happened["commit error"] += len(taken) < len(wanted)
        self.happened["commit answer lost"] += bool(taken) and is_lost

    def hear_of_the_commit(self) -> None:
        assert not self.goes_on(self.answer)
        for tp, (reading, offset) in self.answer.items():
            reading.acknowledged = offset
            self.happened["late commit answer"] += reading is not self.readings.get(TPS.index(tp))

    def goes_on(self, answer: Collection[TP] | None) -> bool:
        """Whether the commit under way waits for an answer now; None sets it going."""
        assert self.committing is not None
        try:
            self.committing.send(answer)
        except StopIteration:
            self.committing = None
            return False
        return True

    def due_now(self) -> dict[TP, int]:
        """By the reference: nothing is due of an assignment that the group has left behind."""
        if self.is_fenced:
            return {}
        return {TPS[number]: reading.due for number, reading in self.readings.items() if reading.due is not None}

    # --- rebalances ---

    def rebalance(self, which: int) -> None:
        if self.is_current and which % 3 == 0:
            # The session timed out: the generation moves on before we are told that our partitions are gone.
            self.generation, self.is_fenced = self.generation + 1, True
            self.happened["fenced"] += 1
        elif self.assignment.is_open:
            self.revoke(commits=which % 3 == 1)
        else:
            self.assign(which % 4)

    def come_back(self, which: int) -> None:
        if self.assignment.is_open:
            self.revoke(commits=True)
        else:
            self.assign(which % 4)

    def revoke(self, commits: bool) -> None:
        """As Worker.end_assignment: the drain, then a last commit of what is due, of trackers that are dead by then."""
        assert not self.drains()
        due = {tp: offset for tp, (_, offset) in self.assignment.due(self.generation).items()}
        self.assignment.revoke()
        assert due == self.due_now()
        for tp, offset in due.items():
            if commits:
                self.partitions[TPS.index(tp)].take(offset)
        self.revoked = [*self.revoked[-3:], *self.readings.items()]
        self.readings.clear()
        self.happened["revoked"] += 1

    def drains(self) -> bool:
        """With no tasks there is nothing to wait for."""
        drain = self.assignment.drain(1.0)
        try:
            drain.send(None)
        except StopIteration:
            return bool(self.assignment.is_open)
        return True

    def assign(self, committed_by_another: int) -> None:
        """Reading begins at the committed offset, which another worker may have moved meanwhile."""
        self.generation, self.is_fenced = self.generation + 1, False
        self.assignment.reopen()
        assert self.assignment.is_open
        for partition in self.partitions:
            rest = [record for record in partition.log if record >= partition.committed]
            for record in rest[:committed_by_another]:
                partition.done.add(record)
                partition.take(record + 1)
            partition.position = len(partition.log) - len(rest[committed_by_another:])
        self.happened["assigned"] += 1

    # --- always ---

    @invariant()
    def offsets_are_those_of_the_reference(self) -> None:
        self.happened["steps"] += self.checks > 0  # also called before the first step
        self.checks += 1
        for number, reading in self.readings.items():
            tracker = reading.tracker
            assert self.assignment.tracker((TPS[number], self.generation - self.is_fenced)) is tracker
            assert (tracker.expected, tracker.committable) == (reading.next_offset, reading.prefix_end)
            assert (tracker.due(), tracker.is_hole_known) == (reading.due, reading.is_hole_known)
            assert tracker.oldest_open_timestamp_s == reading.oldest_open
        due = self.assignment.due(self.generation)
        assert {tp: offset for tp, (_, offset) in due.items()} == self.due_now()
        self.nothing_is_left_of_a_revoked_assignment()

    def nothing_is_left_of_a_revoked_assignment(self) -> None:
        for number, reading in self.revoked:
            tracker = reading.tracker
            assert (tracker.dead, tracker.due(), tracker.oldest_open_timestamp_s) == (True, None, None)
            assert self.assignment.tracker((TPS[number], self.generation)) is not tracker

    def teardown(self) -> None:
        if self.committing is not None:
            self.committing.close()
