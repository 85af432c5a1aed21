"""What a finished audit tells: a table on a terminal, tab-separated lines in a pipe, one JSON document on request."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.audit.books import AHEAD, ELSEWHERE, INVENTED, LOST, UNCHECKED, WRONG, Books, End, Fault, Line
from streams.terminal import printable

_COLUMNS = ("records", *(end.value for end in End), INVENTED, LOST, AHEAD, UNCHECKED)
_BAD = frozenset(WRONG)
_WRONG = "wrong"
#: Columns that a terminal needs for every column of the table.
_WIDE = 120
#: Tenant and id of the longest that we take are shown in full.
_MAX_SHOWN_CHARS = 400


def document(books: Books) -> dict[str, Any]:
    """Everything that was counted, as one JSON document."""
    return {
        "balanced": books.balance,
        "verdict": verdict(books),
        "wrong": books.wrong,
        "partitions": [
            {"topic": topic, "partition": partition, **_counts(line)} for (topic, partition), line in books.in_order
        ],
        "total": _counts(books.total),
        "ids": dict(books.ids),
        "rows": dict(books.rows),
        "events": dict(books.events),
        "letters": dict(books.letters),
        "copies": dict(books.copies),
        "replayed": books.replayed,
        "beyond_retention": books.beyond_retention,
        "unchecked": books.unchecked,
        "faults": [_fault(fault) for fault in books.faults],
    }


def verdict(books: Books) -> str:
    """One sentence."""
    wrong = ", ".join(f"{count} {what}" for what, count in books.wrong.items())
    unproven = {End.PENDING.value: books.total.ends[End.PENDING], UNCHECKED: books.unchecked}
    rest = "".join(f"; {what}: {count}" for what, count in unproven.items() if count and what not in books.wrong)
    return (f"the books do not balance: {wrong}" if wrong else "the books balance") + rest


def print_report(books: Books, console: Console) -> None:
    """To a terminal for a person, to anything else for `cut` and `grep`: full cells, a tab between."""
    if console.is_terminal:
        _print_tables(books, console)
        return
    for cells in _plain(books):
        console.file.write("\t".join(cells) + "\n")
    console.file.write(verdict(books) + "\n")


def _plain(books: Books) -> Iterator[tuple[str, ...]]:
    yield "partition", *_COLUMNS
    for place, line in books.in_order:
        yield _partition(place), *_cells(line)
    yield "total", *_cells(books.total)
    yield from _notes(books)
    for fault in books.faults:
        yield "fault", fault.what, _name(fault), _place(fault), fault.why


def _print_tables(books: Books, console: Console) -> None:
    for block in (
        _partitions_table(books, console.width),
        _notes_table(books),
        *([_faults_table(books)] if books.faults else []),
    ):
        console.print()
        console.print(block)
    console.print()
    console.print(Text(f"  {verdict(books)}", style="green" if books.balance else "bold red"))


def _partitions_table(books: Books, width: int) -> Table:
    """What is wrong has a column each where there is room, else one for all; none while nothing is."""
    good = [name for name in _COLUMNS if name not in _BAD and (name != UNCHECKED or books.unchecked)]
    bad = (
        [name for name in _COLUMNS if _of(books.total, name)]
        if width >= _WIDE
        else [_WRONG] * any(books.wrong.get(name) for name in _BAD)
    )
    shown = [*good, *(name for name in bad if name not in good)]
    table = Table(box=None, header_style="dim", padding=(0, 1))
    table.add_column("partition")
    for name in shown:
        table.add_column(name, justify="right")
    for place, line in books.in_order:
        # Without the topic's name, which all but a few share.
        label = _partition(place).removeprefix(f"{books.inputs[0]}/")
        table.add_row(Text(label), *(_styled(line, name) for name in shown))
    table.add_row("total", *(_styled(books.total, name) for name in shown), style="bold")
    return table


def _notes_table(books: Books) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value, note in _notes(books):
        table.add_row(Text(f"  {name}"), Text(value, style="bold", justify="right"), Text(note, style="dim"))
    return table


def _faults_table(books: Books) -> Table:
    table = Table.grid(padding=(0, 2))
    for fault in books.faults:
        cells = (_name(fault), _place(fault), fault.why)
        table.add_row(Text(f"  {fault.what}", style="bold red"), *(Text(cell, overflow="fold") for cell in cells))
    return table


def _notes(books: Books) -> Iterator[tuple[str, str, str]]:
    """Name, value and note of what is counted in all."""
    ids, rows, events = books.ids, books.rows, books.events
    yield (
        "distinct ids",
        str(ids["distinct"]),
        f"{ids['repeats']} more records of them, {ids['nameless']} without an id",
    )
    yield "rows", str(rows["read"]), f"{rows['beyond_retention']} beyond retention, {rows['later']} later: not checked"
    yield "events", str(events["read"]), f"{events['repeated']} of them repeated"
    letters = books.letters
    yield "letters", str(letters["read"]), f"{letters['repeated']} of them repeated, {letters['overtaken']} overtaken"
    yield "sent home", str(books.copies["read"]), f"{books.copies['repeated']} of them repeated"
    yield "replayed", str(books.replayed), "records that are a letter's replay"
    if books.unchecked:
        yield "unchecked", str(books.unchecked), "records of which retention may have taken the proof"


def _counts(line: Line) -> dict[str, int]:
    return {name: _of(line, name) for name in _COLUMNS}


def _cells(line: Line) -> list[str]:
    return [str(_of(line, name)) for name in _COLUMNS]


def _styled(line: Line, name: str) -> Text:
    count = _of(line, name)
    style = "dim" if not count else "bold red" if name in _BAD or name == _WRONG else ""
    return Text(str(count), style=style)


def _of(line: Line, name: str) -> int:
    if name == "records":
        return line.read
    if name == _WRONG:
        return sum(_of(line, bad) for bad in _BAD)
    return line.ends[name] + line.besides[name]


def _fault(fault: Fault) -> dict[str, Any]:
    place = fault.place
    return {
        "what": fault.what,
        "tenant": None if fault.tenant is None else _shown(fault.tenant),
        "id": None if fault.id is None else _shown(fault.id),
        "topic": _shown(place.topic),
        "partition": place.partition,
        "offset": place.offset,
        "why": fault.why,
    }


def _partition(place: tuple[str, int]) -> str:
    return _shown(place[0] if place == ELSEWHERE else f"{place[0]}/{place[1]}")


def _place(fault: Fault) -> str:
    return _shown(f"{fault.place.topic}/{fault.place.partition}/{fault.place.offset}")


def _name(fault: Fault) -> str:
    return "-" if fault.id is None else _shown(f"{fault.tenant}:{fault.id}")


def _shown(text: str) -> str:
    """A foreign row or header may hold as much as it likes."""
    shown = printable(text[:_MAX_SHOWN_CHARS])
    return shown if len(text) <= _MAX_SHOWN_CHARS else f"{shown}..."
