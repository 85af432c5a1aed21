"""Stops, continues or kills a whole process tree at once, like a frozen or dead machine.

By parentage, not by group or session: Postgres gives each backend a session of its own.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_WITHIN_S = 10.0


def tree_of(pid: int) -> dict[int, str]:
    """The process and all its descendants that live: process id to state, the letter of proc(5)."""
    parents, states = {}, {}
    for entry in Path("/proc").iterdir():
        # Processes may end while they are listed.
        with suppress(OSError):
            if entry.name.isdigit():
                # The name in brackets may hold anything, also brackets.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                parents[int(entry.name)], states[int(entry.name)] = int(parent), state
    found = {pid} & states.keys()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {process: states[process] for process in found if states[process] not in "ZX"}


def is_stopped(pid: int) -> bool:
    """The tree is there, and no process of it runs."""
    tree = tree_of(pid)
    return bool(tree) and set(tree.values()) == {"T"}


def stop_tree(pid: int) -> None:
    """Returns when every process of the tree is stopped; one that was being forked meanwhile, too."""
    deadline = time.monotonic() + _WITHIN_S
    while tree := tree_of(pid):
        running = [process for process, state in tree.items() if state != "T"]
        if not running:
            return
        assert time.monotonic() < deadline, f"still running: {running}"
        _signal(running, signal.SIGSTOP)


def continue_tree(pid: int) -> None:
    """Continues the whole tree; running processes are not disturbed."""
    _signal(tree_of(pid), signal.SIGCONT)


@contextmanager
def slowed_tree(pid: int, stopped_s: float = 0.3, running_s: float = 0.1) -> Iterator[None]:
    """Lets it run in short spells only, so that it answers slowly."""
    over = threading.Event()

    def slow_down() -> None:
        while not over.wait(running_s):
            stop_tree(pid)
            over.wait(stopped_s)
            continue_tree(pid)

    slowing = threading.Thread(target=slow_down)
    slowing.start()
    try:
        yield
    finally:
        over.set()
        slowing.join()


def kill_tree(pid: int) -> None:
    """SIGKILL for all of it; returns when all are dead.

    They are stopped first, so that none sees another one die and puts something in order.
    """
    stop_tree(pid)
    killed = tree_of(pid)
    _signal(killed, signal.SIGKILL)
    deadline = time.monotonic() + _WITHIN_S
    while any(tree_of(process) for process in killed):
        assert time.monotonic() < deadline, f"not dead yet: {killed}"


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
