"""Shows the result of a demo: tables on a terminal, tab-separated lines in a pipe, or one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from streams.dev.demo.figures import Example
from streams.dev.demo.run import Report
from streams.terminal import Cell, Column, terminal_table, write_rows

#: How the time to an insight is measured.
MEASURED = "received_at to analysed_at of the rows, without the time to write the row"
_CALLS = {
    "standin": "counted by the stand-in for Grok",
    "grok": "counted by the workers",
    "local": "the local analyser makes no calls",
}
_COST = {"standin": "at list prices; nothing was paid", "grok": "billed by the provider", "local": "no calls, no cost"}
_STYLES = {
    "negative": "red",
    "positive": "green",
    "mixed": "yellow",
    "high": "yellow",
    "critical": "bold red",
    "ok": "green",
    "FAILED": "bold red",
}

#: Name, value and note of a figure.
Line = tuple[str, str, str]
_FIGURE_COLUMNS = (Column(min_width=18), Column(is_number=True, min_width=8), Column())


def document(report: Report) -> dict[str, Any]:
    """Returns the report as one JSON document; examples have the names of the HTTP API."""
    figures = report.figures
    return {
        "ok": figures.add_up,
        "broker": report.options.broker,
        "workers": report.options.workers,
        "analyser": report.options.analyser,
        "conversations": {"in": figures.accepted, **figures.conversations},
        "filter_reasons": figures.filter_reasons,
        "calls": {"provider": figures.calls.best_count, "counted_by_workers": figures.calls.by_workers},
        "distinct_texts": figures.distinct_texts,
        "cost_usd": figures.cost_usd,
        "cost_usd_ticks": figures.cost_usd_ticks,
        "seconds_to_insight": {"p50": figures.p50_s, "p95": figures.p95_s, "measured": MEASURED},
        "put_off": report.busy_replies,
        "phases_s": {name: round(seconds, 3) for name, seconds in report.phases_s.items()},
        "checks": [{"name": check.name, "held": check.passed, "detail": check.detail} for check in figures.checks],
        "examples": [asdict(example) for example in report.examples],
        "pids": report.pids,
    }


def print_report(report: Report, console: Console) -> None:
    """Prints tables to a terminal, and full cells separated by tabs to anything else."""
    if not console.is_terminal:
        write_rows(_plain(report), console.file)
        return
    tables = [terminal_table((Column(min_width=10), Column()), _example_rows(report))]
    tables += [terminal_table(_FIGURE_COLUMNS, _styled(block)) for block in _blocks(report)]
    tables.append(terminal_table((Column(), Column()), _check_rows(report)))
    if report.examples:
        console.print(Text("\n  some of the insights", style="bold"))
    for table in tables:
        console.print()
        console.print(table)


def _plain(report: Report) -> Iterator[tuple[str, ...]]:
    for example in report.examples:
        score = f"{example.sentiment_score:+.2f}"
        yield "insight", example.urgency, example.sentiment, score, example.intent, _summary(example), example.id
    for block in _blocks(report):
        yield from block
    for check in report.figures.checks:
        yield "check", _word(check.passed), check.detail


def _example_rows(report: Report) -> Iterator[tuple[Cell, Cell]]:
    for example in report.examples:
        sentiment = f"{example.sentiment} {example.sentiment_score:+.2f}"
        traits = [Text(sentiment, style=_STYLES.get(example.sentiment, "")), Text(example.intent)]
        traits += [Text(topic, style="dim") for topic in example.topics]
        yield Text(f"  {example.urgency}", style=_STYLES.get(example.urgency, "")), Text("  ").join(traits)
        yield "", Text(_summary(example), style="italic")


def _styled(lines: list[Line]) -> Iterator[tuple[Cell, Cell, Cell]]:
    for name, value, note in lines:
        yield f"  {name}", Text(value, style="bold"), Text(note, style="dim")


def _check_rows(report: Report) -> Iterator[tuple[Cell, Cell]]:
    for check in report.figures.checks:
        word = _word(check.passed)
        yield Text(f"  {word}", style=_STYLES[word]), check.detail


def _blocks(report: Report) -> list[list[Line]]:
    """Returns the figures in three blocks: outcomes, calls and times."""
    figures, counts, analyser = report.figures, report.figures.conversations, report.options.analyser
    busy = f"; {report.busy_replies} replies 429 or 503" if report.busy_replies else ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in figures.filter_reasons.items())
    outcomes = [
        ("conversations in", str(figures.accepted), f"posted over HTTP and accepted with 202{busy}"),
        ("analysed", str(counts["analysed"]), "the first of each text"),
        ("cached", str(counts["cached"]), "served from the cache: an equal text was analysed before"),
        ("filtered", str(counts["filtered"]), reasons),
        ("dead", str(counts["dead"]), "could not be processed: now dead letters"),
    ]
    calls = [("calls to Grok", str(figures.calls.best_count), _CALLS[analyser])]
    if analyser == "standin":
        calls.append(("calls sent", str(figures.calls.by_workers), "counted by the workers (grok_calls_total)"))
    calls.append(("distinct texts", str(figures.distinct_texts), "that needed an answer"))
    calls.append(("cost in USD", f"{figures.cost_usd:.4f}", _COST[analyser]))
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.phases_s.items())
    times = [
        ("to insight, p50", _seconds(figures.p50_s), "received_at to analysed_at of the rows,"),
        ("to insight, p95", _seconds(figures.p95_s), "without the time to write the row"),
        ("all phases", _seconds(sum(report.phases_s.values())), phases),
    ]
    return [outcomes, calls, times]


def _word(passed: bool) -> str:
    return "ok" if passed else "FAILED"


def _summary(example: Example) -> str:
    return " ".join(example.summary.split())


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
