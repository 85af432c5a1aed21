"""The log of all child processes: one file, optionally a terminal, and the last lines of each for error messages."""

import contextlib
import re
import threading
from collections import defaultdict, deque
from pathlib import Path
from typing import TextIO

MAX_BYTES = 16 * 1024 * 1024
TAIL_LINES = 40
# Bounds the memory for a line that never ends; nothing of ours logs lines this long.
MAX_LINE_CHARS = 16_384
# Colours, and control characters that could rewrite what a terminal shows.
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class ProcessLog:
    """Takes lines from any thread. Never raises: a full disk or a closed terminal must not stop a process.

    The file is opened at the first line, so a stack that is refused its data folder leaves the running stack's log
    alone. The earlier content is kept as `*.log.1`, also when the file grows beyond `max_bytes`.
    """

    def __init__(self, path: Path, *, echo: TextIO | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._echo = echo
        self._max_bytes = max_bytes
        self._file: TextIO | None = None
        self._written = 0
        self._is_closed = False
        self._tails: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=TAIL_LINES))
        self._lock = threading.Lock()

    def line(self, name: str, text: str) -> None:
        """Records one line of the process `name`."""
        text = _CONTROL.sub("", text[:MAX_LINE_CHARS])
        with self._lock:
            self._tails[name].append(text)
            self._write(f"{name} | {text}\n")

    def tail(self, name: str, lines: int = TAIL_LINES) -> list[str]:
        """Returns the last lines of the process `name`, oldest first; empty when it has logged nothing."""
        with self._lock:
            return list(self._tails[name])[-lines:] if name in self._tails else []

    def clear_tail(self, name: str) -> None:
        """Empties the tail of a process, so that an error never shows lines of an earlier run."""
        with self._lock:
            self._tails.pop(name, None)

    def close(self) -> None:
        """Closes the file; later lines only reach the tails and the terminal."""
        with self._lock, contextlib.suppress(OSError):
            self._is_closed = True
            if self._file is not None:
                self._file.close()

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._echo is not None:
                self._echo.write(line)
                self._echo.flush()
        if self._is_closed:
            return
        with contextlib.suppress(OSError):
            if self._file is None or self._written > self._max_bytes:
                self._open()
            assert self._file is not None
            self._file.write(line)
            self._written += len(line)

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self.path.replace(self.path.with_suffix(".log.1"))
        self._file = self.path.open("w", encoding="utf-8", buffering=1)
        self._written = 0
