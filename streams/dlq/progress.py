"""How a replay shows that it moves, on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0


class TerminalBar(AbstractContextManager["TerminalBar"]):
    """One bar, with the time that is left."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (TextColumn("  replayed"), BarColumn(bar_width=None), MofNCompleteColumn())
        self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, expand=True)
        self._task = self._progress.add_task("replayed", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def replayed(self, count: int) -> None:
        """So many in all so far."""
        self._progress.update(self._task, completed=count)


class PlainLines(AbstractContextManager["PlainLines"]):
    """A line every LINE_EVERY_S seconds, and one for the last letter."""

    def __init__(self, stream: TextIO, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._total = total
        self._clock = clock
        self._next_line_s = clock() + LINE_EVERY_S

    def __exit__(self, *_: object) -> None:
        """Nothing to put away."""

    def replayed(self, count: int) -> None:
        """So many in all so far."""
        if count == self._total or self._clock() >= self._next_line_s:
            self._next_line_s = self._clock() + LINE_EVERY_S
            self._stream.write(f"replayed {count} of {self._total}\n")
            self._stream.flush()


def progress_on_stderr(total: int) -> TerminalBar | PlainLines:
    """The one that suits stderr. FORCE_COLOR is no reason to draw a bar into a file."""
    console = Console(stderr=True)
    can_draw = sys.stderr.isatty() and not console.is_dumb_terminal
    return TerminalBar(console, total) if can_draw else PlainLines(sys.stderr, total)
