"""A child process: its output goes to the ProcessLog, and nothing of it outlives this process."""

import atexit
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from streams.dev.local.process_log import MAX_LINE_CHARS, ProcessLog

# The shell waits for one line, sent once a reaper watches its process group. If this process is killed in between, it
# reads the end of the pipe instead and never runs the program.
_WAIT_THEN_EXEC = 'read -r _ && exec "$@"'

# Kills the process group, unless it reads a line. The kernel closes its pipe however this process ends. Linux's
# PR_SET_PDEATHSIG cannot replace it: it depends on the thread that started the child, is lost when the child changes
# its user, and misses grandchildren.
_KILL_UNLESS_RELEASED = 'read -r _ || kill -s KILL -- "-$1"'
#: One tiny process for each group that must not outlive this process.
_reapers: dict[int, subprocess.Popen[bytes]] = {}


def watch_group(group: int) -> None:
    """Makes sure that a process group is killed when this process ends, even by SIGKILL."""
    argv = ["/bin/sh", "-c", _KILL_UNLESS_RELEASED, "sh", str(group)]
    _reapers[group] = subprocess.Popen(argv, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)


def release_group(group: int) -> None:
    """Undoes `watch_group` for a group that has ended: the kernel may reuse its number. Safe to call again."""
    reaper = _reapers.pop(group, None)
    if reaper is not None:
        assert reaper.stdin is not None
        with contextlib.suppress(BrokenPipeError), reaper.stdin:
            reaper.stdin.write(b"\n")
        reaper.wait()


@atexit.register
def kill_watched_groups() -> None:
    """Sends SIGKILL to every watched group. Takes no lock, so a signal handler may call it."""
    for group in list(_reapers):
        _kill_group(group)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


@dataclass
class Child:
    """A named process in its own process group. It can be started once.

    A program that cannot be executed ends with exit code 126 or 127 and the shell's reason in the log.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: ProcessLog
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _log_thread: threading.Thread | None = field(default=None, init=False)
    _was_asked_to_stop: bool = field(default=False, init=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None before the start and while it runs; negative is the number of the signal that ended it."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Starts the process; its standard input stays open until `send`. Raises OSError when the machine is full."""
        assert self._process is None, f"{self.name} was started before"
        self.log.clear_tail(self.name)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_THEN_EXEC, "sh", *self.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.env,
            cwd=self.cwd,
            start_new_session=True,
        )
        watch_group(self._process.pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        self._log_thread = threading.Thread(
            target=self._copy_lines, args=(self._process.stdout,), name=f"log-{self.name}", daemon=True
        )
        self._log_thread.start()

    def send(self, data: bytes = b"") -> None:
        """Writes all of the standard input and closes it."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(data)
        self._close_stdin()

    def ask_to_stop(self) -> None:
        """Sends the stop signal once: many programs take a second one as "stop at once"."""
        if self.is_running and not self._was_asked_to_stop:
            assert self._process is not None
            self._was_asked_to_stop = True
            self._process.send_signal(self.stop_signal)

    def terminate(self, grace_s: float) -> None:
        """Asks it to stop, waits up to `grace_s` seconds, then kills what is left of its group. Safe to call again."""
        if self._process is None:
            return
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        _kill_group(self._process.pid)
        self._process.wait()
        release_group(self._process.pid)
        self._close_stdin()
        if self._log_thread is not None:
            # A grandchild in a session of its own may hold the pipe a little longer: the thread is a daemon.
            self._log_thread.join(2)

    def _close_stdin(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _copy_lines(self, output: IO[bytes]) -> None:
        with output:
            for raw in iter(lambda: output.readline(MAX_LINE_CHARS), b""):
                self.log.line(self.name, raw.decode("utf-8", errors="replace").rstrip("\r\n"))
