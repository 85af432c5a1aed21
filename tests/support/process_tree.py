"""Stops, continues or kills whole process trees at one moment, as a frozen or a dead machine would.

By parentage, not by group or session: Postgres gives each backend a session of its own.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.support.waiting import wait_until

_TIMEOUT_S = 10.0
_DEAD = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


def tree_of(pid: int) -> list[psutil.Process]:
    """Returns the process and all its running descendants."""
    try:
        root = psutil.Process(pid)
        return [process for process in (root, *root.children(recursive=True)) if _status(process) not in _DEAD]
    except psutil.NoSuchProcess:
        return []


def is_stopped(pid: int) -> bool:
    """Whether there is a tree and no process of it runs."""
    tree = tree_of(pid)
    return bool(tree) and not _running(tree)


def stop_tree(pid: int) -> None:
    """Returns when every process of the tree is stopped, also one that was being forked meanwhile."""

    def all_stopped() -> bool:
        running = _running(tree_of(pid))
        _each(running, psutil.Process.suspend)
        return not running

    wait_until(all_stopped, timeout_s=_TIMEOUT_S, what=f"the tree of {pid} is stopped")


def continue_tree(pid: int) -> None:
    """Lets every process of the tree run again; those that run are not disturbed."""
    _each(tree_of(pid), psutil.Process.resume)


@contextmanager
def slowed_tree(pid: int, stopped_s: float = 0.3, running_s: float = 0.1) -> Iterator[None]:
    """Lets the tree run in short spells only, so that each answer waits for one."""
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
    """Kills the whole tree with SIGKILL; returns when all are dead.

    They are stopped first, so that no process sees another one die and reacts to it.
    """
    stop_tree(pid)
    killed = tree_of(pid)
    _each(killed, psutil.Process.kill)
    wait_until(
        lambda: all(_status(process) in _DEAD for process in killed),
        timeout_s=_TIMEOUT_S,
        what=f"the tree of {pid} is dead",
    )


def _running(tree: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [process for process in tree if _status(process) not in {psutil.STATUS_STOPPED, *_DEAD}]


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_DEAD)


def _each(processes: Iterable[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            act(process)
