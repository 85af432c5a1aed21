"""Shows the result of a demo: tables on a terminal, tab-separated lines in a pipe, or one JSON document."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.dev.demo.figures import Example, Figures
from streams.dev.demo.runner import Report

#: How the time to an insight is measured.
MEASURED = "received_at to analysed_at of the rows; writing the row comes on top"
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
        "calls": {"provider": _calls(figures), "counted_by_workers": figures.calls.by_workers},
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
    if console.is_terminal:
        _print_tables(report, console)
    else:
        for cells in _plain(report):
            console.file.write("\t".join(cells) + "\n")


def _plain(report: Report) -> Iterator[tuple[str, ...]]:
    for example in report.examples:
        yield "insight", example.urgency, *_sentiment(example), example.intent, _summary(example), example.id
    for block in (_outcome_lines(report), _call_lines(report), _time_lines(report)):
        yield from block
    for check in report.figures.checks:
        yield "check", "ok" if check.passed else "FAILED", check.detail


def _print_tables(report: Report, console: Console) -> None:
    blocks = [_figures_table(lines) for lines in (_outcome_lines(report), _call_lines(report), _time_lines(report))]
    for block in (_examples_table(report.examples), *blocks, _checks_table(report.figures)):
        console.print()
        console.print(block)


def _examples_table(examples: Iterable[Example]) -> Table:
    table = _grid({"min_width": 10, "no_wrap": True}, {"no_wrap": True, "overflow": "ellipsis"})
    for example in examples:
        sentiment, score = _sentiment(example)
        traits = [Text(f"{sentiment} {score}", style=_STYLES.get(sentiment, "")), Text(example.intent)]
        traits += [Text(topic, style="dim") for topic in example.topics]
        table.add_row(Text(f"  {example.urgency}", style=_STYLES.get(example.urgency, "")), Text("  ").join(traits))
        table.add_row("", Text(_summary(example), style="italic"))
    return table


def _figures_table(lines: Iterable[Line]) -> Table:
    table = _grid({"width": 18, "no_wrap": True}, {"width": 8, "justify": "right", "no_wrap": True}, {"style": "dim"})
    for name, value, note in lines:
        table.add_row(Text(f"  {name}"), Text(value, style="bold"), Text(note))
    return table


def _checks_table(figures: Figures) -> Table:
    table = _grid({}, {})
    for check in figures.checks:
        word = "ok" if check.passed else "FAILED"
        table.add_row(Text(f"  {word}", style=_STYLES[word]), Text(check.detail))
    return table


def _grid(*columns: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for column in columns:
        table.add_column(**column)
    return table


def _outcome_lines(report: Report) -> Iterator[Line]:
    figures = report.figures
    counts = figures.conversations
    busy = f"; {report.busy_replies} replies 429 or 503" if report.busy_replies else ""
    yield "conversations in", str(figures.accepted), f"posted over HTTP and accepted with 202{busy}"
    yield "analysed", str(counts["analysed"]), "the first of each text"
    yield "cached", str(counts["cached"]), "served from the cache: an equal text had its answer"
    reasons = ", ".join(f"{count} {reason}" for reason, count in figures.filter_reasons.items())
    yield "filtered", str(counts["filtered"]), reasons
    yield "dead", str(counts["dead"]), "set aside as dead letters"


def _call_lines(report: Report) -> Iterator[Line]:
    figures, analyser = report.figures, report.options.analyser
    yield "calls to Grok", str(_calls(figures)), _CALLS[analyser]
    if analyser == "standin":
        yield "calls sent", str(figures.calls.by_workers), "counted by the workers (grok_calls_total)"
    yield "distinct texts", str(figures.distinct_texts), "that needed an answer"
    yield "cost in USD", f"{figures.cost_usd:.4f}", _COST[analyser]


def _time_lines(report: Report) -> Iterator[Line]:
    yield "to insight, p50", _seconds(report.figures.p50_s), "received_at to analysed_at of the rows;"
    yield "to insight, p95", _seconds(report.figures.p95_s), "writing the row comes on top"
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.phases_s.items())
    yield "all phases", _seconds(sum(report.phases_s.values())), phases


def _calls(figures: Figures) -> int:
    """Returns the stand-in's count, or without one the workers' (0 with the local analyser)."""
    return figures.calls.by_workers if figures.calls.by_standin is None else figures.calls.by_standin


def _sentiment(example: Example) -> tuple[str, str]:
    return example.sentiment, f"{example.sentiment_score:+.2f}"


def _summary(example: Example) -> str:
    return " ".join(example.summary.split())


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
