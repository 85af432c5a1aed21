"""The one place for the logs of all children: a file, on request a terminal, and the last lines for error messages."""

import contextlib
import re
import threading
from collections import defaultdict, deque
from pathlib import Path
from typing import TextIO

MAX_BYTES = 16 * 1024 * 1024
TAIL_LINES = 40
# A line that never ends must not fill the memory; nothing of ours logs lines this long.
MAX_LINE_CHARS = 16_384
# Colours, and control characters that could rewrite what a terminal shows.
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class LogSink:
    """Takes lines from any thread. Never raises: a full disk or a closed terminal must not stop what is being logged.

    The file is opened at the first line, so a stack that is refused its data folder leaves the log of the running one
    alone. What was there before is kept as `*.log.1`, also when the file grows over `max_bytes`.
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
        """Record one line of the child `name`."""
        text = _CONTROL.sub("", text[:MAX_LINE_CHARS])
        with self._lock:
            self._tails[name].append(text)
            self._write(f"{name} | {text}\n")

    def tail(self, name: str, lines: int = TAIL_LINES) -> list[str]:
        """The last lines of the child `name`, oldest first; empty when it has said nothing."""
        with self._lock:
            return list(self._tails[name])[-lines:] if name in self._tails else []

    def forget(self, name: str) -> None:
        """Start the child's tail anew, so that an error never shows the lines of an earlier run."""
        with self._lock:
            self._tails.pop(name, None)

    def close(self) -> None:
        """Close the file; later lines only go to the tails and the terminal."""
        with self._lock, contextlib.suppress(OSError):
            self._is_closed = True
            if self._file is not None:
                self._file.close()

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._echo is not None:
                self._echo.write(line)
                self._echo.flush()
        with contextlib.suppress(OSError):
            if self._is_closed:
                return
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
