"""Tables show the cells of foreign records without affecting the terminal."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from streams.terminal import Cell, Column, print_table, printable, terminal_table, write_rows


def drawn(columns: list[Column], *rows: tuple[Cell, ...], width: int = 40) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=width, color_system=None).print(terminal_table(columns, rows))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("given", "shown"),
    [(None, ""), ("a\tb", "a\\tb"), (b"\x1b[2J", "\\x1b[2J"), (b"\xff", "\ufffd"), ("Grüße", "Grüße")],
)
def test_control_characters_are_escaped(given: bytes | str | None, shown: str) -> None:
    """A foreign key must not move the cursor, nor break a line in two."""
    assert printable(given) == shown


def test_numbers_are_aligned_to_the_right_and_cells_are_not_markup() -> None:
    """The header is there unless no column has a name."""
    columns = [Column("name"), Column("count", is_number=True)]
    assert drawn(columns, ("[red]", "7")) == ["name   count", "[red]      7"]
    assert drawn([Column(), Column()], ("a", "b")) == ["a  b"]


def test_a_column_with_a_minimum_width_is_cut_and_others_wrap() -> None:
    """What is cut is shown elsewhere; what wraps is the only place."""
    assert drawn([Column("a", min_width=4)], ("x" * 50,), width=10) == ["a", "xxxxxxxxx…"]
    assert drawn([Column("a")], ("x" * 15,), width=10) == ["a", "x" * 10, "x" * 5]


def test_rows_elsewhere_are_lines_with_tabs() -> None:
    """For `cut` and `grep`."""
    stream = io.StringIO()
    write_rows([("a", "b"), ("c",)], stream)
    assert stream.getvalue() == "a\tb\nc\n"


@pytest.mark.parametrize(("is_terminal", "shown"), [(True, "ok   all\nbad  none\n"), (False, "ok\tall\nbad\tnone\n")])
def test_a_table_is_printed_in_the_form_that_suits_the_console(is_terminal: bool, shown: str) -> None:
    """Styles are for terminals only."""
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=40, color_system=None)
    print_table([Column(), Column()], [("ok", "all"), (Text("bad", style="red"), "none")], console)
    assert isinstance(console.file, io.StringIO)
    assert "\n".join(line.rstrip() for line in console.file.getvalue().split("\n")) == shown
