"""How long work shows that it moves, on stderr: a bar for each step on a terminal, a plain line at times elsewhere."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0


class Display(Protocol):
    """Steps begin, move and end; several may be under way at once."""

    def say(self, line: str) -> None:
        """One line for a person."""

    def begin(self, step: str, total: int | None) -> None:
        """A step of so many; `total` may turn out too high, and None is for what cannot be counted."""

    def reached(self, step: str, count: int) -> None:
        """So many of the step are done, in all."""

    def done(self, step: str) -> None:
        """The step is over."""


@dataclass
class _Bar:
    task: TaskID
    total: int | None
    count: int = 0


class TerminalDisplay(AbstractContextManager["TerminalDisplay"]):
    """Bars at the bottom, one a step, and lines above them; a step without a total has a bar that only moves."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  {task.description:<8}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}", justify="right"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self._bars: dict[str, _Bar] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._progress.console.print(f"  {line}", style="dim", markup=False, highlight=False)

    def begin(self, step: str, total: int | None) -> None:
        if total is None:
            task = self._progress.add_task(step, total=None, count="")
        else:
            task = self._progress.add_task(step, total=max(total, 1), count=f"0/{total:,}")
        self._bars[step] = _Bar(task, total)

    def reached(self, step: str, count: int) -> None:
        bar = self._bars[step]
        bar.count = count
        self._progress.update(bar.task, completed=count, count=f"{count:,}/{bar.total:,}")

    def done(self, step: str) -> None:
        bar = self._bars.pop(step)
        if bar.total is None:
            self._progress.update(bar.task, visible=False)
        else:
            self._progress.update(bar.task, total=max(bar.count, 1), completed=max(bar.count, 1))


class PlainDisplay(AbstractContextManager["PlainDisplay"]):
    """Lines only: one every LINE_EVERY_S seconds, and one at the end of each step that is counted."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next_line_s = 0.0
        #: Count so far and total of each step under way.
        self._counts: dict[str, tuple[int, int]] = {}

    def __exit__(self, *_: object) -> None:
        """Nothing to put away."""

    def say(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def begin(self, step: str, total: int | None) -> None:
        if total is None:
            return
        if not self._counts:
            self._next_line_s = self._clock() + LINE_EVERY_S
        self._counts[step] = (0, total)

    def reached(self, step: str, count: int) -> None:
        self._counts[step] = (count, self._counts[step][1])
        if self._clock() >= self._next_line_s:
            self._next_line_s = self._clock() + LINE_EVERY_S
            self.say(", ".join(f"{step} {count} of {total}" for step, (count, total) in self._counts.items()))

    def done(self, step: str) -> None:
        if step in self._counts:
            self.say(f"{step} {self._counts.pop(step)[0]}")


def display_on_stderr() -> TerminalDisplay | PlainDisplay:
    """The one that suits stderr. FORCE_COLOR is no reason to draw bars into a file."""
    console = Console(stderr=True)
    can_draw = sys.stderr.isatty() and not console.is_dumb_terminal
    return TerminalDisplay(console) if can_draw else PlainDisplay(sys.stderr)
