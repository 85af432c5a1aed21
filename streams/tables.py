"""Shows tables: aligned on a terminal, one line with tabs a row elsewhere, for `cut` and `grep`."""

from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

from rich.table import Table
from rich.text import Text

#: Where a cell has a style, it is given as rich's Text.
Cell = str | Text


class Column(NamedTuple):
    """A column of a table. One with a `min_width` is cut to a line, and may shrink to that on a narrow terminal."""

    name: str = ""
    is_number: bool = False
    min_width: int | None = None


def terminal_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> Table:
    """Returns a table for a terminal, with a header unless no column has a name.

    Cells are no markup: another producer's id may hold what rich takes for it.
    """
    table = Table(
        box=None, show_header=any(column.name for column in columns), header_style="dim", padding=(0, 1), pad_edge=False
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


def printable(content: bytes | str | None) -> str:
    """Escapes whatever is not a visible character, so that it fits one line and cannot control a terminal."""
    if content is None:
        return ""
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
