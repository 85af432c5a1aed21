"""One child process: its own group, its output line by line in the LogSink, an end that leaves nothing behind."""

import contextlib
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from streams.local import guard
from streams.local.log_sink import MAX_LINE_CHARS, LogSink

# The child waits for one line, sent when the guard knows its group: were we killed in between, it reads the end of the
# pipe instead and never starts. What follows that line is the program's own input.
_WAIT_THEN_EXEC = 'read -r _ && exec "$@"'


class Child:
    """A process with a name. Start it once; it ends with us whatever happens to us.

    A program that cannot be executed shows as exit code 126 or 127 with the shell's reason in the log.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: LogSink,
        *,
        cwd: Path | None = None,
        stdin: bytes = b"",
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._env = dict(env)
        self._log = log
        self._cwd = cwd
        self._stdin = stdin
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._was_asked = False

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
        """Start the process. Raises OSError when the machine has no room for one more."""
        assert self._process is None, f"{self.name} was started before"
        self._log.forget(self.name)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_THEN_EXEC, "sh", *self._argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )
        guard.OURS.watch(self._process.pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as go:
            go.write(b"\n" + self._stdin)
        self._pump = threading.Thread(
            target=self._copy_lines, args=(self._process.stdout,), name=f"log-{self.name}", daemon=True
        )
        self._pump.start()

    def ask_to_stop(self) -> None:
        """Send the stop signal, once: to many programs a second one means "at once"."""
        if self.is_running and not self._was_asked:
            assert self._process is not None
            self._was_asked = True
            self._process.send_signal(self._stop_signal)

    def terminate(self, grace_s: float) -> None:
        """Ask it to stop, wait up to `grace_s` seconds, then kill what is left of its group. Safe to call again."""
        if self._process is None:
            return
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self.kill()
        self._process.wait()
        guard.OURS.release(self._process.pid)
        if self._pump is not None:
            # A grandchild in a session of its own may hold the pipe a little longer; the daemon thread sees to it.
            self._pump.join(2)

    def kill(self) -> None:
        """SIGKILL for the whole group, now."""
        if self._process is not None:
            guard.kill_groups([self._process.pid])

    def wait(self, timeout_s: float) -> int | None:
        """The exit code once it has ended with all its output logged, or None after `timeout_s` seconds."""
        assert self._process is not None
        assert self._pump is not None
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._pump.join(2)
        return code

    def _copy_lines(self, output: IO[bytes]) -> None:
        with output:
            for raw in iter(lambda: output.readline(MAX_LINE_CHARS), b""):
                self._log.line(self.name, raw.decode("utf-8", errors="replace").rstrip("\r\n"))
