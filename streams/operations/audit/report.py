"""The audit's report: tables on a terminal, tab-separated lines elsewhere, one JSON document on request."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.operations.audit.findings import (
    ELSEWHERE,
    FAILURES,
    Discrepancy,
    Finding,
    PartitionCounts,
    Reconciliation,
    Status,
)
from streams.terminal import Cell, Column, printable, terminal_table, write_rows

#: The column of all failures together, where a terminal has no room for one each.
_FAILED = "failed"
#: Width of a terminal that has room for all columns.
_WIDE = 120
#: Enough for the longest tenant and id that the service accepts; those of other programs may be longer.
_MAX_SHOWN_CHARS = 400


def document(result: Reconciliation) -> dict[str, Any]:
    """Returns everything that was counted, for --json."""
    return {
        "balanced": not result.problems,
        "verdict": conclusion(result),
        "wrong": result.problems,
        "partitions": [
            {"topic": topic, "partition": partition, **counts.columns}
            for (topic, partition), counts in result.partitions
        ],
        "total": result.total.columns,
        "ids": dict(result.ids),
        "rows": dict(result.rows),
        "events": dict(result.events),
        "dead_letters": dict(result.dead_letters),
        "copies": dict(result.copies),
        "replayed": result.replayed,
        "beyond_retention": result.beyond_retention,
        "unverifiable": result.total.by[Discrepancy.UNVERIFIABLE],
        "findings": [_finding_document(finding) for finding in result.findings],
    }


def conclusion(result: Reconciliation) -> str:
    """Returns the result of the audit as one sentence."""
    problems, total = result.problems, result.total
    failed = ", ".join(f"{count} {what}" for what, count in problems.items())
    unproven = {what: total.by[what] for what in (Status.PENDING, Discrepancy.UNVERIFIABLE) if what not in problems}
    rest = "".join(f"; {what}: {count}" for what, count in unproven.items() if count)
    return (f"not reconciled: {failed}" if failed else "reconciled") + rest


def print_report(result: Reconciliation, console: Console) -> None:
    """Prints the report in the form that suits the console."""
    if not console.is_terminal:
        write_rows(_lines(result), console.file)
        return
    findings: list[tuple[Cell, ...]] = [
        (Text(finding.what, style="bold red"), *_finding(finding)) for finding in result.findings
    ]
    notes: list[tuple[Cell, ...]] = [
        (name, Text(value, style="bold"), Text(note, style="dim")) for name, value, note in _notes(result)
    ]
    for block in (
        _partitions_table(result, console.width),
        terminal_table((Column(), Column(is_number=True), Column()), notes),
        terminal_table([Column()] * 4, findings),
        Text(conclusion(result), style="bold red" if result.problems else "green"),
    ):
        if not isinstance(block, Table) or block.row_count:
            console.print()
            console.print(block)


def _lines(result: Reconciliation) -> Iterator[tuple[str, ...]]:
    yield "partition", *result.total.columns
    for partition, counts in result.partitions:
        yield _partition(partition), *map(str, counts.columns.values())
    yield "total", *map(str, result.total.columns.values())
    yield from _notes(result)
    for finding in result.findings:
        yield "finding", finding.what, *_finding(finding)
    yield (conclusion(result),)


def _partitions_table(result: Reconciliation, width: int) -> Table:
    """Shows failures in a column each where there is room, else in one; without failures in none."""
    total = result.total
    failed = [what for what in FAILURES if total.by[what]]
    shown = [name for name in total.columns if name not in FAILURES or (name in failed and width >= _WIDE)]
    if not total.by[Discrepancy.UNVERIFIABLE]:
        shown.remove(Discrepancy.UNVERIFIABLE)
    if failed and width < _WIDE:
        shown.append(_FAILED)
    # The topic that nearly all partitions belong to is left out.
    rows: list[tuple[Cell, ...]] = [
        (_partition(partition).removeprefix(f"{result.inputs[0]}/"), *_cells(counts, shown))
        for partition, counts in result.partitions
    ]
    rows.append((Text("total", style="bold"), *_cells(total, shown, "bold")))
    return terminal_table([Column("partition"), *(Column(name, is_number=True) for name in shown)], rows)


def _cells(counts: PartitionCounts, shown: list[str], style: str = "") -> Iterator[Text]:
    columns = {**counts.columns, _FAILED: sum(counts.by[what] for what in FAILURES)}
    for name in shown:
        if not columns[name]:
            yield Text("0", style="dim")
        else:
            yield Text(str(columns[name]), style="bold red" if name in (_FAILED, *FAILURES) else style)


def _notes(result: Reconciliation) -> Iterator[tuple[str, str, str]]:
    """Yields name, value and explanation of what is counted over all partitions."""
    ids, rows, events, dead_letters = result.ids, result.rows, result.events, result.dead_letters
    repeats = (
        f"{ids['repeats']} further records with these ids, {ids['without_id']} without a readable id or valid tenant"
    )
    yield "distinct ids", str(ids["distinct"]), repeats
    unchecked = f"not checked: {rows['beyond_retention']} beyond retention, {rows['later']} newer than the audit"
    yield "rows", str(rows["read"]), unchecked
    yield "events", str(events["read"]), f"{events['repeated']} of them repeated"
    overtaken = f"{dead_letters['repeated']} of them repeated, {dead_letters['overtaken']} overtaken"
    yield "dead letters", str(dead_letters["read"]), overtaken
    yield "rehomed", str(result.copies["read"]), f"{result.copies['repeated']} of them repeated"
    yield "replayed", str(result.replayed), "records that replay a dead letter"
    if unverifiable := result.total.by[Discrepancy.UNVERIFIABLE]:
        yield "unverifiable", str(unverifiable), "records whose proof retention may have removed"


def _finding_document(finding: Finding) -> dict[str, Any]:
    return {
        "what": finding.what,
        "tenant": None if finding.tenant is None else _short(finding.tenant),
        "id": None if finding.id is None else _short(finding.id),
        "topic": _short(finding.origin.topic),
        "partition": finding.origin.partition,
        "offset": finding.origin.offset,
        "why": finding.why,
    }


def _finding(finding: Finding) -> tuple[str, str, str]:
    """Returns id, origin and reason."""
    origin = finding.origin
    name = "-" if finding.id is None else _short(f"{finding.tenant}:{finding.id}")
    return name, _short(f"{origin.topic}/{origin.partition}/{origin.offset}"), finding.why


def _partition(partition: tuple[str, int]) -> str:
    return _short(partition[0] if partition == ELSEWHERE else f"{partition[0]}/{partition[1]}")


def _short(text: str) -> str:
    """Rows and headers of other programs may hold text of any length."""
    shown = printable(text[:_MAX_SHOWN_CHARS])
    return shown if len(text) <= _MAX_SHOWN_CHARS else f"{shown}..."
