"""What a finished demo tells, in its three forms."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

from streams.demo.calls import calls_in
from streams.demo.examples import Example
from streams.demo.figures import Calls, Row, figures
from streams.demo.report import document, print_report
from streams.demo.runner import Options, Report

AT = datetime(2026, 1, 1, tzinfo=UTC)
SUMMARY = "I ordered two weeks ago, and nothing has come so far, so please tell me where it is [now]."


def report(*, calls: int = 1) -> Report:
    rows = [Row("c1", "analysed", None, AT, AT + timedelta(seconds=2), "t1", 10**9)]
    example = Example("c1", "star", "negative", -0.5, "high", ("order",), "ask_status", SUMMARY)
    options = Options("tansu", 2, "standin", None, Path("data"))
    made = figures(["c1"], rows, Calls(calls, 1))
    return Report(options, made, [example], 0, {"tansu": 1}, {"start": 3.0, "post": 1.0})


def printed(*, is_terminal: bool, calls: int = 1) -> str:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=is_terminal, no_color=True, highlight=False)
    print_report(report(calls=calls), console)
    return file.getvalue()


def test_the_document_is_json_with_all_figures() -> None:
    """A program finds the sums, the calls, the checks and how times were measured."""
    told = json.loads(json.dumps(document(report())))
    assert told["ok"] is True
    assert told["conversations"] == {"in": 1, "analysed": 1, "cached": 0, "filtered": 0, "dead": 0}
    assert (told["calls"]["provider"], told["distinct_texts"], told["cost_usd"]) == (1, 1, 0.1)
    assert told["seconds_to_insight"]["p95"] == 2.0
    assert "received_at" in told["seconds_to_insight"]["measured"]
    assert told["examples"][0]["summary"] == SUMMARY


def test_a_pipe_gets_whole_cells_with_tabs() -> None:
    """Nothing is cut or wrapped at 80 columns, and no escape code is in it."""
    lines = printed(is_terminal=False).splitlines()
    assert lines[0].split("\t") == ["insight", "high", "negative", "-0.50", "ask_status", SUMMARY, "c1"]
    assert "conversations in\t1\tposted over HTTP and answered 202" in lines
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_no_line_that_is_too_long() -> None:
    """80 columns are enough; what a person wrote is not read as markup."""
    shown = Text.from_ansi(printed(is_terminal=True)).plain
    assert max(map(len, shown.splitlines())) <= 80
    assert "I ordered two weeks ago" in shown


def test_a_check_that_failed_says_so_in_words() -> None:
    """Colour alone would be lost on some."""
    for is_terminal in (True, False):
        assert "FAILED" in printed(is_terminal=is_terminal, calls=2)
        assert "2 calls is not 1 distinct texts" in printed(is_terminal=is_terminal, calls=2)


def test_calls_are_read_from_the_metrics() -> None:
    """Only the counter itself, whatever else is exposed."""
    exposition = "# HELP grok_calls_total x\n# TYPE grok_calls_total counter\ngrok_calls_total 12.0\n"
    assert calls_in(exposition + '# TYPE grok_call_errors_total counter\ngrok_call_errors_total{class="x"} 3.0\n') == 12
