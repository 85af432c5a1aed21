"""A terminal in which a test runs a command as a person does."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading

from tests.support.processes import ROOT
from tests.support.waiting import wait_until

ROWS, COLUMNS = 50, 250


class Terminal:
    """A command of ours in a terminal of its own, and what it shows."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._chunks: list[str] = []
        self._main, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streams", *arguments],
            env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the terminal ends with the last process in it
            while chunk := os.read(self._main, 4096):
                self._chunks.append(chunk.decode(errors="replace"))

    @property
    def text(self) -> str:
        """Without colours and carriage returns."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", "".join(self._chunks))

    def wait_for(self, shown: str, timeout_s: float = 90) -> None:
        wait_until(lambda: shown in self.text or self.process.poll() is not None, timeout_s=timeout_s, what=shown)
        assert shown in self.text, self.text

    def stop(self) -> int:
        """Ctrl-C, then the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)
