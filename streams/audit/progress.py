"""How an audit shows that it moves, on stderr: a bar for each step on a terminal, a plain line at times elsewhere."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE_EVERY_S = 5.0


class Display(Protocol):
    """A step begins, and then moves until it is done."""

    def say(self, line: str) -> None:
        """One line for a person."""

    def begin(self, step: str, total: int) -> None:
        """A step of so many; `total` may turn out too high, since logs have holes."""

    def advance(self, count: int) -> None:
        """So many more of the step are done."""

    def done(self) -> None:
        """The step is over."""


class TerminalDisplay(AbstractContextManager["TerminalDisplay"]):
    """One bar a step, below each other."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  {task.description:<8}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}", justify="right"),
            TimeElapsedColumn(),
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None
        self._total = self._count = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._progress.console.print(f"  {line}", style="dim", markup=False, highlight=False)

    def begin(self, step: str, total: int) -> None:
        self._total, self._count = total, 0
        self._task = self._progress.add_task(step, total=max(total, 1), count=f"0/{total:,}")

    def advance(self, count: int) -> None:
        assert self._task is not None, "begin() comes first"
        self._count += count
        self._progress.update(self._task, completed=self._count, count=f"{self._count:,}/{self._total:,}")

    def done(self) -> None:
        assert self._task is not None, "begin() comes first"
        self._progress.update(self._task, total=max(self._count, 1), completed=max(self._count, 1))


class PlainDisplay(AbstractContextManager["PlainDisplay"]):
    """Lines only: one every LINE_EVERY_S seconds, and one at the end of each step."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next_line_s = 0.0
        self._step = ""
        self._total = self._count = 0

    def __exit__(self, *_: object) -> None:
        """Nothing to put away."""

    def say(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def begin(self, step: str, total: int) -> None:
        self._step, self._total, self._count = step, total, 0
        self._next_line_s = self._clock() + LINE_EVERY_S

    def advance(self, count: int) -> None:
        self._count += count
        if self._clock() >= self._next_line_s:
            self._next_line_s = self._clock() + LINE_EVERY_S
            self.say(f"{self._step} {self._count} of {self._total}")

    def done(self) -> None:
        self.say(f"{self._step} {self._count}")


def display_on_stderr() -> TerminalDisplay | PlainDisplay:
    """The one that suits stderr. FORCE_COLOR is no reason to draw bars into a file."""
    console = Console(stderr=True)
    can_draw = sys.stderr.isatty() and not console.is_dumb_terminal
    return TerminalDisplay(console) if can_draw else PlainDisplay(sys.stderr)
