"""How a run shows that it moves, on stderr: bars on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE_EVERY_S = 5.0


class Display(Protocol):
    """`begin` is called once before the counts, each of which is the whole count so far."""

    def say(self, line: str) -> None:
        """One line for a person."""

    def begin(self, total: int) -> None:
        """So many conversations are about to be posted."""

    def posted(self, count: int) -> None:
        """So many were accepted."""

    def ended(self, count: int) -> None:
        """So many have their row."""


class TerminalDisplay(AbstractContextManager["TerminalDisplay"]):
    """Bars at the bottom, lines above them: one bar that only moves while the stack starts, then one for each count."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  {task.description:<8}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            expand=True,
        )
        self._starting = self._progress.add_task("starting", total=None, count="")
        self._posted = self._progress.add_task("posted", total=None, visible=False, count="")
        self._ended = self._progress.add_task("ended", total=None, visible=False, count="")
        self._total = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._progress.console.print(f"  {line}", style="dim", markup=False, highlight=False)

    def begin(self, total: int) -> None:
        self._total = total
        self._progress.update(self._starting, visible=False)
        for task in (self._posted, self._ended):
            self._progress.reset(task, total=total, visible=True)

    def posted(self, count: int) -> None:
        self._show(self._posted, count)

    def ended(self, count: int) -> None:
        self._show(self._ended, count)

    def _show(self, task: TaskID, count: int) -> None:
        self._progress.update(task, completed=count, count=f"{count}/{self._total}")


class PlainDisplay(AbstractContextManager["PlainDisplay"]):
    """Lines only; of the counts one every LINE_EVERY_S seconds and the last one."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next_line_s = 0.0
        self._total = self._posted = self._ended = 0

    def __exit__(self, *_: object) -> None:
        """Nothing to put away."""

    def say(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def begin(self, total: int) -> None:
        self._total = total
        self._next_line_s = self._clock() + LINE_EVERY_S

    def posted(self, count: int) -> None:
        self._posted = count
        self._tell(is_last=False)

    def ended(self, count: int) -> None:
        is_last = count == self._total != self._ended
        self._ended = count
        self._tell(is_last=is_last)

    def _tell(self, *, is_last: bool) -> None:
        if is_last or self._clock() >= self._next_line_s:
            self._next_line_s = self._clock() + LINE_EVERY_S
            self.say(f"posted {self._posted} of {self._total}, ended {self._ended}")


def display_on_stderr() -> TerminalDisplay | PlainDisplay:
    """The one that suits stderr. FORCE_COLOR is no reason to draw bars into a file."""
    console = Console(stderr=True)
    can_draw = sys.stderr.isatty() and not console.is_dumb_terminal
    return TerminalDisplay(console) if can_draw else PlainDisplay(sys.stderr)
