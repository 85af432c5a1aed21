"""Planted defects: one small change each in the source of what keeps the offsets, loaded as modules of their own."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tests.unit.pipeline.tracker_model import Parts

OFFSETS, ASSIGNMENT, COMMITTER = (f"streams.pipeline.{name}" for name in ("offsets", "assignment", "committer"))


class Mutant(NamedTuple):
    """What is wrong, in which module, and how it is made: `old` stands there exactly once and becomes `new`."""

    what: str
    module: str
    old: str
    new: str


MUTANTS = (
    # --- Tracker.judge, confirm_hole, is_hole_known ---
    Mutant("the next record is a repeat", OFFSETS, "offset < self.expected", "offset <= self.expected"),
    Mutant("repeats are the next record", OFFSETS, "return Verdict.REPEAT", "return Verdict.NEXT"),
    Mutant("repeats are jumps", OFFSETS, "return Verdict.REPEAT", "return Verdict.JUMP"),
    Mutant("jumps are repeats", OFFSETS, "return Verdict.JUMP", "return Verdict.REPEAT"),
    Mutant("gaps are compaction", OFFSETS, "if offset == self.expected or", "if offset >= self.expected or"),
    Mutant("holes are never believed", OFFSETS, " or offset == self._hole_ends_at", ""),
    Mutant("any jump after a hole", OFFSETS, "offset == self._hole_ends_at:", "self._hole_ends_at is not None:"),
    Mutant("a hole ends one late", OFFSETS, "self._hole_ends_at = next_in_log", "self._hole_ends_at = next_in_log + 1"),
    Mutant("a hole moves on", OFFSETS, "self._hole_ends_at = next_in_log", "self.expected = next_in_log"),
    Mutant("holes are not remembered", OFFSETS, "return self._hole_ends_at is not None", "return False"),
    # --- Tracker.admit ---
    Mutant("a dead tracker admits", OFFSETS, "if self.dead or self.judge(", "if self.judge("),
    Mutant("anything is admitted", OFFSETS, "if self.dead or self.judge(offset) is not Verdict.NEXT:", "if self.dead:"),
    Mutant("jumps are admitted", OFFSETS, "self.judge(offset) is not Verdict.NEXT", "offset < self.expected"),
    Mutant("the same record is next", OFFSETS, "self.expected = offset + 1", "self.expected = offset"),
    Mutant("a hole is one offset", OFFSETS, "self.expected = offset + 1", "self.expected += 1"),
    Mutant("holes stay known", OFFSETS, "        self._hole_ends_at = None\n        slot", "        slot"),
    Mutant("slots out of order", OFFSETS, "self._open.append(slot)", "self._open.appendleft(slot)"),
    # --- Tracker.finish ---
    Mutant("late acks finish", OFFSETS, "if self.dead:\n            return\n        slot", "slot"),
    Mutant("only one slot is passed", OFFSETS, "while self._open and", "if self._open and"),
    Mutant("any finished slot passes", OFFSETS, "self._open[0].finished", "any(slot.finished for slot in self._open)"),
    Mutant("the newest slot decides", OFFSETS, "self._open[0].finished", "self._open[-1].finished"),
    Mutant("the newest slot is passed", OFFSETS, "self._open.popleft().offset", "self._open.pop().offset"),
    Mutant("the offset itself", OFFSETS, "self._open.popleft().offset + 1", "self._open.popleft().offset"),
    Mutant("two too far", OFFSETS, "self._open.popleft().offset + 1", "self._open.popleft().offset + 2"),
    Mutant(
        "the ack's own offset", OFFSETS, "self._open.popleft().offset + 1", "self._open.popleft() and slot.offset + 1"
    ),
    # --- Tracker.due, revoke, oldest_open_timestamp_s ---
    Mutant("a dead tracker is due", OFFSETS, "if self.dead or self.committable ==", "if self.committable =="),
    Mutant("due for ever", OFFSETS, "self.committable == self.committed", "self.committable is None"),
    Mutant("due is what was read", OFFSETS, "return self.committable", "return self.expected"),
    Mutant("revoked trackers live", OFFSETS, "        self.dead = True\n", ""),
    Mutant("revoked trackers stay full", OFFSETS, "        self._open.clear()\n", ""),
    Mutant("the age of the newest", OFFSETS, "self._open[0].timestamp_s", "self._open[-1].timestamp_s"),
    # --- Committer ---
    Mutant(
        "committed before the broker took it",
        COMMITTER,
        "if due:\n",
        "if due:\n            for tracker, offset in due.values():\n                tracker.committed = offset\n",
    ),
    Mutant("finished meanwhile counts", COMMITTER, "tracker.committed = offset", "tracker.committed = tracker.due()"),
    Mutant("a commit is not remembered", COMMITTER, "tracker.committed = offset", "pass"),
    Mutant("refusals are not heard", COMMITTER, "in due.items()}):", "in due.items()}) or due:"),
    Mutant("one too far", COMMITTER, "{tp: offset for tp,", "{tp: offset + 1 for tp,"),
    Mutant("commits of nothing", COMMITTER, "if due:", "if True:"),
    # --- Assignment ---
    Mutant("any generation is due", ASSIGNMENT, "of_generation == generation and ", ""),
    Mutant(
        "older generations are due", ASSIGNMENT, "of_generation == generation and", "of_generation <= generation and"
    ),
    Mutant("committed again", ASSIGNMENT, "(offset := tracker.due())", "(offset := tracker.committable)"),
    Mutant("reading from the begin", ASSIGNMENT, "= Tracker(expected)", "= Tracker(0)"),
    Mutant("revoked and alive", ASSIGNMENT, "            tracker.revoke()", "            pass"),
    Mutant("revoked and still there", ASSIGNMENT, "        self._trackers.clear()\n", ""),
    Mutant("records during the drain", ASSIGNMENT, "        self._is_ending = True\n", ""),
    Mutant("closed for ever", ASSIGNMENT, 'begins."""\n        self._is_ending = False', 'begins."""'),
)


def mutated(mutant: Mutant | None = None) -> Parts:
    """The three modules, one of them with the defect. Fails when the text to change is not there exactly once."""
    offsets = _load(OFFSETS, mutant, {})
    assignment = _load(ASSIGNMENT, mutant, {"Tracker": offsets.Tracker})
    return Parts(offsets, assignment, _load(COMMITTER, mutant, {"Assignment": assignment.Assignment}))


def _load(name: str, mutant: Mutant | None, imported: Mapping[str, object]) -> ModuleType:
    """`imported` takes the place of what the source imports from its neighbours."""
    path = import_module(name).__file__
    assert path is not None
    source = Path(path).read_text()
    if mutant is not None and mutant.module == name:
        assert source.count(mutant.old) == 1, f"{mutant.what}: {mutant.old!r} must stand exactly once in {name}"
        source = source.replace(mutant.old, mutant.new)
    module = ModuleType(name)
    exec(compile(source, f"<mutant of {name}>", "exec"), module.__dict__)  # noqa: S102  our own source
    vars(module).update(imported)
    return module
