"""A child process: its output goes to the ProcessLog, and nothing of it outlives this process."""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from streams.dev.local.process_log import MAX_LINE_CHARS, ProcessLog

# The shell waits for one line, sent once the reaper knows its process group. If this process is killed in between, the
# shell reads the end of the pipe instead and never runs the program.
_WAIT_THEN_EXEC = 'read -r _ && exec "$@"'

_REAPER_PROGRAM = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Reaper:
    """Kills our child process groups when this process dies, even by SIGKILL or when memory runs out.

    A second tiny process holds the read end of a pipe and is sent each group's number. The kernel closes the pipe
    however this process ends; the reaper then kills the groups that are left. Linux's PR_SET_PDEATHSIG cannot replace
    it: it depends on the thread that started the child, is lost when the child changes its user, and misses
    grandchildren.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """Adds a process group. A reaper that was killed is replaced here."""
        with self._lock:
            self._groups.add(group)
            self._send(f"+{group}\n")

    def release(self, group: int) -> None:
        """Removes a group that has ended: the kernel may reuse its number."""
        with self._lock:
            self._groups.discard(group)
            self._send(f"-{group}\n")

    def kill_all(self) -> None:
        """Sends SIGKILL to every group. Takes no lock, so a signal handler may call it."""
        kill_groups(list(self._groups))

    def close(self) -> None:
        """Ends the reaper, which kills every group that was not released."""
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
                self._process.wait()
            self._process = None

    def _send(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            if self._process is not None:
                self._write(line)
                return
        if self._process is not None:
            self._process.wait()
        argv = [sys.executable, "-I", "-S", "-c", _REAPER_PROGRAM]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0, start_new_session=True
        )
        self._write("".join(f"+{group}\n" for group in self._groups))

    def _write(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())


REAPER = Reaper()
atexit.register(REAPER.close)


def kill_groups(groups: Iterable[int]) -> None:
    """Sends SIGKILL to every process of the groups and skips groups that have ended."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


class Child:
    """A named process in its own process group. It can be started once.

    A program that cannot be executed ends with exit code 126 or 127 and the shell's reason in the log.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: ProcessLog,
        *,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._env = dict(env)
        self._log = log
        self._cwd = cwd
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._log_thread: threading.Thread | None = None
        self._was_asked_to_stop = False

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
        self._log.clear_tail(self.name)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_THEN_EXEC, "sh", *self._argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )
        REAPER.watch(self._process.pid)
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
            self._process.send_signal(self._stop_signal)

    def terminate(self, grace_s: float) -> None:
        """Asks it to stop, waits up to `grace_s` seconds, then kills what is left of its group. Safe to call again."""
        if self._process is None:
            return
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        kill_groups([self._process.pid])
        self._process.wait()
        REAPER.release(self._process.pid)
        self._close_stdin()
        if self._log_thread is not None:
            # A grandchild in a session of its own may hold the pipe a little longer: the thread is a daemon.
            self._log_thread.join(2)

    def wait(self, timeout_s: float) -> int | None:
        """Returns the exit code once it has ended and its output is logged, or None after `timeout_s` seconds."""
        assert self._process is not None
        assert self._log_thread is not None
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._log_thread.join(2)
        return code

    def _close_stdin(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _copy_lines(self, output: IO[bytes]) -> None:
        with output:
            for raw in iter(lambda: output.readline(MAX_LINE_CHARS), b""):
                self._log.line(self.name, raw.decode("utf-8", errors="replace").rstrip("\r\n"))
