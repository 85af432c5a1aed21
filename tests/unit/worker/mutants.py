"""Defects that the model of the committed offsets must see, and the modules with one of them."""

from tests.support.mutants import Mutant, load
from tests.unit.worker.tracker_model import Parts

OFFSETS, INTAKE = "streams.worker.offsets", "streams.worker.intake"

MUTANTS = (
    # --- Tracker.admit
    Mutant("a revoked tracker admits", OFFSETS, "if self.is_revoked or offset < self.next:", "if offset < self.next:"),
    Mutant("anything is admitted", OFFSETS, "self.is_revoked or offset < self.next", "self.is_revoked"),
    Mutant("gaps are refused", OFFSETS, "self.is_revoked or offset < self.next", "offset != self.next"),
    Mutant("the same record is next", OFFSETS, "self.next = offset + 1", "self.next = offset"),
    Mutant("a gap is one offset", OFFSETS, "self.next = offset + 1", "self.next += 1"),
    Mutant("offsets out of order", OFFSETS, "self._open.append(offset)", "self._open.appendleft(offset)"),
    Mutant(
        "only the last is opened", OFFSETS, "            self._open.append(offset)", "        self._open.append(offset)"
    ),
    # --- Tracker.finish
    Mutant("late finishes count", OFFSETS, "if self.is_revoked:\n            return\n        waiting", "waiting"),
    Mutant("finished twice", OFFSETS, "offset in finished or not waiting[0]", "not waiting[0]"),
    Mutant("finished below the run", OFFSETS, "not waiting[0] <= offset < self.next", "offset >= self.next"),
    Mutant("only one is passed", OFFSETS, "while waiting and waiting[0] in", "if waiting and waiting[0] in"),
    Mutant(
        "any finished one passes", OFFSETS, "while waiting and waiting[0] in finished", "while waiting and finished"
    ),
    Mutant(
        "the newest is passed",
        OFFSETS,
        "last = waiting.popleft()\n        while",
        "last = waiting.pop()\n        while",
    ),
    Mutant("the offset itself", OFFSETS, "self.committable = last + 1", "self.committable = last"),
    Mutant("two too far", OFFSETS, "self.committable = last + 1", "self.committable = last + 2"),
    Mutant("the finish's own offset", OFFSETS, "self.committable = last + 1", "self.committable = offset + 1"),
    Mutant("the highest finished", OFFSETS, "finished.add(offset)\n", "self.committable = offset + 1\n"),
    Mutant("nothing finishes out of order", OFFSETS, "finished.add(offset)\n", "pass\n"),
    # --- Tracker.due, revoke
    Mutant("a revoked tracker is due", OFFSETS, "self.is_revoked or self.committable ==", "self.committable =="),
    Mutant("due without end", OFFSETS, "self.committable == self.committed", "self.committable is None"),
    Mutant("due is what was read", OFFSETS, "return self.committable", "return self.next"),
    Mutant("revoked trackers live", OFFSETS, "        self.is_revoked = True\n", ""),
    # --- Intake.commit
    Mutant(
        "committed before the broker took it",
        INTAKE,
        "        if due and await",
        "        for tracker, at in due.items():\n            tracker.committed = at\n        if due and await",
    ),
    Mutant("finished meanwhile counts", INTAKE, "tracker.committed = at", "tracker.committed = tracker.due()"),
    Mutant("a commit is not remembered", INTAKE, "tracker.committed = at", "pass"),
    Mutant("refusals are ignored", INTAKE, "generation, offsets):", "generation, offsets) or due:"),
    Mutant("one too far", INTAKE, "{tracker.tp: at for", "{tracker.tp: at + 1 for"),
    Mutant("commits of nothing", INTAKE, "if due and await", "if await"),
    Mutant("committed again", INTAKE, "(at := tracker.due()) is not None", "(at := tracker.committable) is not None"),
    # --- Intake.process, Assignment
    Mutant("a fetch that comes too late", INTAKE, "if fetch.assignment.is_open and", "if"),
    Mutant("no fetch at all", INTAKE, "fetch.assignment.is_open and", "not fetch.assignment.is_open and"),
    Mutant("the reader is not woken", INTAKE, "            fetch.is_taken.set()", "            pass"),
    Mutant("repeats are not dropped", INTAKE, "if records[0].offset < tracker.next:", "if False:"),
    Mutant("the next record is a repeat", INTAKE, "record.offset >= tracker.next", "record.offset > tracker.next"),
    Mutant("all is rehomed", INTAKE, "rehomed=tracker.tp.topic == self._rehomed_topic", "rehomed=True"),
    Mutant("ended and still current", INTAKE, "self.current, None\n", "self.current, self.current\n"),
    Mutant("ended and open", INTAKE, "            assignment.is_open = False\n", ""),
    Mutant("revoked and alive", INTAKE, "            tracker.revoke()", "            pass"),
)


def mutated(mutant: Mutant | None = None) -> Parts:
    """Both modules, one of them with the defect."""
    offsets = load(OFFSETS, mutant)
    return Parts(offsets, load(INTAKE, mutant, {"Tracker": offsets.Tracker}))
