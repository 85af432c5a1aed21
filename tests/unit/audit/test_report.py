"""What an audit tells, for a person and for a program; and what it shows meanwhile."""

import io

import pytest
from rich.console import Console

from schemas.errors import Fatal
from schemas.kafka import Origin
from streams.audit.books import Books, End
from streams.audit.entries import conversation_key
from streams.audit.report import document, print_report, verdict
from streams.audit.standing import Standing
from tests.support.topics import TOPICS

PLACE = Origin("conversations", 3, 42)


def books_with(end: End, why: str = "", conversation_id: str = "c1") -> Books:
    books = Books(TOPICS.inputs, show=20)
    line = books.line("conversations", 3)
    line.read += 1
    books.ids["distinct"] += 1
    books.ended(line, conversation_key("acme", conversation_id), PLACE, end, why)
    books.check()
    return books


def printed(books: Books, *, is_terminal: bool = False) -> str:
    stream = io.StringIO()
    print_report(books, Console(file=stream, force_terminal=is_terminal, width=120, color_system=None))
    return stream.getvalue()


def test_a_balance_is_told_in_the_last_line() -> None:
    """With what is pending, for that is not yet proven."""
    assert printed(books_with(End.ANALYSED)).splitlines()[-1] == "the books balance"
    assert verdict(books_with(End.PENDING)) == "the books balance; pending: 1"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_fault_names_id_place_and_reason(is_terminal: bool) -> None:
    """On a terminal as in a pipe."""
    out = printed(books_with(End.MISSING, "neither row nor letter"), is_terminal=is_terminal)
    [line] = [line for line in out.splitlines() if "c1" in line]
    assert all(part in line for part in ("missing", "acme:c1", "conversations/3/42", "neither row nor letter"))
    assert out.splitlines()[-1].strip() == "the books do not balance: 1 missing"


def test_lines_in_a_pipe_have_one_cell_for_each_column() -> None:
    """For `cut`."""
    head, line, total, *_ = [line.split("\t") for line in printed(books_with(End.DEAD)).splitlines()]
    assert len(head) == len(line) == len(total)
    assert dict(zip(head, line, strict=True))["dead"] == "1"
    assert line[0] == "conversations/3"


def test_an_id_that_a_terminal_would_obey_is_shown_escaped() -> None:
    """A row may have been written by anyone."""
    out = printed(books_with(End.MISSING, "x", "a\x1b[2Jb"))
    assert "\x1b" not in out
    assert "a\\x1b[2Jb" in out


@pytest.mark.parametrize("is_terminal", [True, False])
def test_ids_and_places_are_shown_in_bounded_form_and_as_they_are_written(is_terminal: bool) -> None:
    """They are no markup, and a long one hides nothing else."""
    books = books_with(End.MISSING, "x", "[red]" + "y" * 100_000)
    books.invented(books.line("[blue]", 1), b"\xff", Origin("\x9b2J[bold]" + "z" * 100_000, 1, 2), "w")
    out = printed(books, is_terminal=is_terminal)
    assert len(out) < 5_000
    assert "\x9b" not in out
    assert all(part in out for part in ("[red]yyy", "[blue]/1", "[bold]zzz"))
    told = document(books)
    assert len(str(told)) < 5_000
    assert "\x9b" not in told["faults"][1]["topic"]


def test_what_cannot_be_checked_is_part_of_the_verdict() -> None:
    """In the text, in the document, and in the partition's line; the strict call it wrong."""
    for strict in (False, True):
        books = Books(TOPICS.inputs, show=20, strict=strict)
        books.stands("conversations", 3, Standing(10, None, 90))
        expected = "the books do not balance: 10 unchecked" if strict else "the books balance; unchecked: 10"
        told = document(books)
        assert (verdict(books), told["verdict"], told["unchecked"]) == (expected, expected, 10)
        assert told["balanced"] is not strict
        assert told["partitions"][0]["unchecked"] == 10
        assert "unchecked" in printed(books, is_terminal=True)
    books = books_with(End.MISSING)
    books.stands("conversations", 3, Standing(10, None, 90))
    assert verdict(books) == "the books do not balance: 1 missing; unchecked: 10"


def test_the_document_holds_every_count() -> None:
    """And the faults, by what they are."""
    told = document(books_with(End.INCOMPLETE, "no event"))
    assert (told["balanced"], told["wrong"], told["total"]["incomplete"]) == (False, {"incomplete": 1}, 1)
    assert told["partitions"] == [{"topic": "conversations", "partition": 3, **told["total"]}]
    [fault] = told["faults"]
    assert (fault["tenant"], fault["id"], fault["offset"]) == ("acme", "c1", 42)


def test_an_audit_whose_own_sums_differ_proves_nothing() -> None:
    """A record that was read and not judged, or judged twice."""
    books = books_with(End.ANALYSED)
    books.line("conversations", 3).read += 1
    with pytest.raises(Fatal, match="do not add up"):
        books.check()
