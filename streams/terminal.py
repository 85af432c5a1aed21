"""Terminal output: progress on stderr, tables, and text made safe to print; plain lines where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, NamedTuple, Self, TextIO, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

LINE_EVERY_S = 5.0


@dataclass
class _Bar:
    task: TaskID
    total: int | None
    count: int = 0


class TerminalDisplay(AbstractContextManager["TerminalDisplay"]):
    """Draws one bar for each step, with lines above them; the bar of a step without a total only pulses.

    Several steps may run at once.
    """

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
        """Leaves the bars as they are, but those that only pulse. Later lines follow below."""
        for bar in self._bars.values():
            if bar.total is None:
                self._progress.update(bar.task, visible=False)
        self._progress.stop()

    def say(self, line: str) -> None:
        self._progress.console.print(f"  {line}", style="dim", markup=False, highlight=False)

    def begin(self, step: str, total: int | None) -> None:
        """Begins a step of `total` items; None is for steps that cannot be counted. The total may prove too high."""
        if total is None:
            task = self._progress.add_task(step, total=None, count="")
        else:
            task = self._progress.add_task(step, total=max(total, 1), count=f"0/{total:,}")
        self._bars[step] = _Bar(task, total)

    def reached(self, step: str, count: int) -> None:
        """Shows that `count` items of the step are done in all."""
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
    """Writes one line every LINE_EVERY_S seconds, and one at the end of each step that has a total."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next_line_s = 0.0
        #: Count so far and total of each running step.
        self._counts: dict[str, tuple[int, int]] = {}

    def __exit__(self, *_: object) -> None:
        """Does nothing: lines need no clean-up."""

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


Display: TypeAlias = TerminalDisplay | PlainDisplay


def display_on_stderr() -> Display:
    """Returns the display that suits stderr. FORCE_COLOR does not make it draw bars into a file."""
    console = Console(stderr=True)
    can_draw = sys.stderr.isatty() and not console.is_dumb_terminal
    return TerminalDisplay(console) if can_draw else PlainDisplay(sys.stderr)


def printable(content: bytes | str | None) -> str:
    """Returns one line in which every character that is not printable is escaped, so that it cannot harm a terminal."""
    if content is None:
        return ""
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


#: Characters between two columns of a table.
GAP = 2
#: Where a cell has a style, it is given as rich's Text.
Cell = str | Text


class Column(NamedTuple):
    """A column of a table. One with a `min_width` is cut to a line, and may shrink to that on a narrow terminal."""

    name: str = ""
    is_number: bool = False
    min_width: int | None = None


def terminal_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> Table:
    """Returns a table for a terminal, with a header unless no column has a name.

    Cells are printed as they are: another producer's id may contain what rich would treat as markup.
    """
    table = Table(
        box=None,
        show_header=any(column.name for column in columns),
        header_style="dim",
        padding=(0, GAP // 2),
        pad_edge=False,
    )
    for column in columns:
        table.add_column(
            column.name,
            justify="right" if column.is_number else "left",
            min_width=column.min_width,
            no_wrap=column.min_width is not None,
            overflow="fold" if column.min_width is None else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def write_rows(rows: Iterable[Sequence[str]], stream: IO[str]) -> None:
    """Writes each row as one line."""
    for row in rows:
        stream.write("\t".join(row) + "\n")


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], console: Console) -> None:
    """Prints a table to a terminal, and lines with tabs to anything else."""
    if console.is_terminal:
        console.print(terminal_table(columns, rows))
    else:
        write_rows(([str(cell) for cell in row] for row in rows), console.file)
