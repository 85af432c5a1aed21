"""Child processes: their output goes to a ProcessLog, and none of them outlives this process."""

import atexit
import contextlib
import os
import re
import signal
import subprocess
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TextIO

# The shell waits for one line, sent once a reaper watches its process group. If this process is killed in between, it
# reads the end of the pipe instead and never runs the program.
_WAIT_THEN_EXEC = 'read -r _ && exec "$@"'

# Kills the process group, unless it reads a line. The kernel closes its pipe however this process ends. Linux's
# PR_SET_PDEATHSIG cannot replace it: it depends on the thread that started the child, is lost when the child changes
# its user, and misses grandchildren.
_KILL_UNLESS_RELEASED = 'read -r _ || kill -s KILL -- "-$1"'
#: One tiny process for each group that must not outlive this process.
_reapers: dict[int, subprocess.Popen[bytes]] = {}

MAX_LOG_BYTES = 16 * 1024 * 1024
TAIL_LINES = 40
# Bounds the memory for a line that never ends; none of our processes logs lines this long.
MAX_LINE_CHARS = 16_384
# Colours, and control characters that could rewrite what a terminal shows.
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def watch_group(group: int) -> None:
    """Makes sure that a process group is killed when this process ends, even by SIGKILL."""
    argv = ["/bin/sh", "-c", _KILL_UNLESS_RELEASED, "sh", str(group)]
    _reapers[group] = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)


def release_group(group: int) -> None:
    """Undoes `watch_group` for a group that has ended: the kernel may reuse its number. Safe to call again."""
    reaper = _reapers.pop(group, None)
    if reaper is not None:
        reaper.communicate(b"\n")


@atexit.register
def kill_watched_groups() -> None:
    """Sends SIGKILL to every watched group. Takes no lock, so a signal handler may call it."""
    for group in list(_reapers):
        _kill_group(group)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


class ProcessLog:
    """The log of all child processes: one file, optionally `show`, and the last lines of each for error messages.

    Takes lines from any thread and never raises: a full disk or a closed terminal must not stop a process. The file is
    opened at the first line, so a stack that is refused its data folder leaves the running stack's log alone. The
    earlier content is kept as `*.log.1`, also when the file grows beyond MAX_LOG_BYTES.
    """

    def __init__(self, path: Path, *, show: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._show = show
        self._file: TextIO | None = None
        self._written = 0
        self._is_closed = False
        self._tails: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=TAIL_LINES))
        self._lock = threading.Lock()

    def line(self, name: str, text: str) -> None:
        """Records one line of the process `name`."""
        text = _CONTROL.sub("", text[:MAX_LINE_CHARS])
        with self._lock:
            self._tails[name].append(text)
            self._write(f"{name} | {text}")

    def tail(self, name: str, lines: int = TAIL_LINES) -> list[str]:
        """Returns the last lines of the process `name`, oldest first; empty when it has logged nothing."""
        with self._lock:
            return list(self._tails[name])[-lines:]

    def clear_tail(self, name: str) -> None:
        """Empties the tail of a process, so that an error never shows lines of an earlier run."""
        with self._lock:
            self._tails[name].clear()

    def close(self) -> None:
        """Closes the file; later lines only reach the tails and the terminal."""
        with self._lock, contextlib.suppress(OSError):
            self._is_closed = True
            if self._file is not None:
                self._file.close()

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._show is not None:
                self._show(line)
        if self._is_closed:
            return
        with contextlib.suppress(OSError):
            if self._file is None or self._written > MAX_LOG_BYTES:
                self._file = self._new_file()
                self._written = 0
            self._file.write(f"{line}\n")
            self._written += len(line)

    def _new_file(self) -> TextIO:
        if self._file is not None:
            self._file.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self.path.replace(self.path.with_suffix(".log.1"))
        return self.path.open("w", encoding="utf-8", buffering=1)


class Child:
    """A named process in its own process group. Raises OSError when the system cannot start another one.

    Its program starts at `run`, not in the constructor: a signal may interrupt the caller in between, and a caller that
    stores the child before calling `run` never leaves a program running that it cannot stop. Its standard input stays
    open until `send`. A program that cannot be executed ends with exit code 126 or 127 and the shell's reason in the
    log.
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
        self._stop_signal = stop_signal
        self._was_asked_to_stop = False
        log.clear_tail(name)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_THEN_EXEC, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        watch_group(self.pid)
        self._log_thread = threading.Thread(
            target=_copy_lines, args=(self._process.stdout, name, log), name=f"log-{name}", daemon=True
        )
        self._log_thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the number of the signal that ended it."""
        return self._process.poll()

    def run(self) -> None:
        """Starts the program; once only."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(b"\n")
            self._stdin.flush()

    def send(self, data: bytes = b"") -> None:
        """Writes all of the standard input and closes it."""
        with contextlib.suppress(BrokenPipeError), self._stdin:
            self._stdin.write(data)

    def ask_to_stop(self) -> None:
        """Sends the stop signal once: many programs take a second one as "stop at once"."""
        if self.is_running and not self._was_asked_to_stop:
            self._was_asked_to_stop = True
            self._process.send_signal(self._stop_signal)

    def terminate(self, grace_s: float) -> None:
        """Asks it to stop, waits up to `grace_s` seconds, then kills what is left of its group. Safe to call again."""
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        _kill_group(self.pid)
        self._process.wait()
        release_group(self.pid)
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        # A grandchild in a session of its own may hold the pipe a little longer: the thread is a daemon.
        self._log_thread.join(2)


def _copy_lines(output: IO[bytes], name: str, log: ProcessLog) -> None:
    with output:
        for raw in iter(lambda: output.readline(MAX_LINE_CHARS), b""):
            log.line(name, raw.decode("utf-8", errors="replace").rstrip("\r\n"))
