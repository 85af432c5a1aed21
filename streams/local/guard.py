"""Ends our children when our own process dies without a chance to do so (SIGKILL, out of memory).

A second tiny process, in its own session, holds the read end of a pipe of ours and is told each child's process group.
The kernel closes the pipe however we die; the guard then kills what is left and ends. Linux's PR_SET_PDEATHSIG is no
replacement: it is tied to the parent's thread, is lost when the child changes its user, and misses grandchildren.

Run as a script this file is the guard; it therefore imports the standard library only.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable


class Guard:
    """Our end of the pipe. A guard that was killed is replaced at the next `watch`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """From now on the process group ends with us."""
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """The group has ended: its number may be given to others."""
        with self._lock:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    def kill_all(self) -> None:
        """SIGKILL for every group watched; takes no lock, so a signal handler may call it."""
        kill_groups(list(self._groups))

    def close(self) -> None:
        """End the guard and with it every group still watched."""
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
                self._process.wait()
            self._process = None

    def _tell(self, line: str) -> None:
        if self._process is None:
            self._process = _start()
        try:
            self._write(line)
        except BrokenPipeError:
            self._process.wait()
            self._process = _start()
            self._write("".join(f"+{group}\n" for group in self._groups))

    def _write(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())


def _start() -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-I", "-S", __file__]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0, start_new_session=True)


def kill_groups(groups: Iterable[int]) -> None:
    """SIGKILL for every process of the groups; those already gone are skipped."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        change, group = line[0], int(line[1:])
        if change == "+":
            groups.add(group)
        else:
            groups.discard(group)
    kill_groups(groups)


OURS = Guard()
atexit.register(OURS.close)

if __name__ == "__main__":
    _main()
