"""The figures of a demo, their checks, the examples, and the three forms of the report."""

import io
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from schemas.insight import Sentiment, Urgency
from schemas.outcome import OutcomeName
from streams.dev.demo.figures import Calls, Check, Example, Figures, Row, compute_figures, percentile, pick_examples
from streams.dev.demo.report import document, print_report
from streams.dev.demo.run import Options, Report, calls_in

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int, outcome: OutcomeName = "analysed", *, text: str = "", seconds: float = 1.0) -> Row:
    reason = "too_short" if outcome == "filtered" else None
    analysed = RECEIVED + timedelta(seconds=seconds)
    return Row(f"c{number}", outcome, reason, RECEIVED, analysed, text or f"t{number}")


def passed(result: Figures) -> dict[str, bool]:
    return {check.name: check.passed for check in result.checks}


def test_each_conversation_is_counted_once_by_its_outcome() -> None:
    """in = analysed + cached + filtered + dead; equal texts are one distinct text, filtered ones need no answer."""
    rows = [row(1, text="a"), row(2, "cached", text="a"), row(3, "filtered"), row(4, "dead")]
    result = compute_figures(["c1", "c2", "c3", "c4"], rows, Calls(1, 1), 0)
    assert result.conversations == {"analysed": 1, "cached": 1, "filtered": 1, "dead": 1}
    assert (result.accepted, result.distinct_texts, result.filter_reasons) == (4, 1, {"too_short": 1})
    assert result.add_up
    assert result.checks[0] == Check("sum", True, "4 in = 1 analysed + 1 cached + 1 filtered + 1 dead")


def test_a_lost_conversation_is_seen() -> None:
    """A missing row breaks the sum and is counted."""
    result = compute_figures(["c1", "c2"], [row(1)], Calls(None, 0), 0)
    assert passed(result) == {"sum": False, "rows": False}
    assert [check.detail for check in result.checks] == [
        "2 in is not 1 analysed + 0 cached + 0 filtered + 0 dead",
        "rows of conversations: 1 missing, 0 never posted",
    ]


def test_a_row_that_was_never_posted_is_seen() -> None:
    """The sum alone could hide one missing and one unknown row."""
    result = compute_figures(["c1", "c2"], [row(1), row(3)], Calls(None, 0), 0)
    assert passed(result) == {"sum": True, "rows": False}


@pytest.mark.parametrize(("calls", "holds"), [(1, True), (2, False), (0, False)])
def test_with_a_standin_calls_must_be_distinct_texts(calls: int, holds: bool) -> None:
    """A text asked twice is seen, and so is one that was never asked."""
    rows = [row(1, text="a"), row(2, "cached", text="a")]
    result = compute_figures(["c1", "c2"], rows, Calls(calls, calls), 0)
    assert passed(result)["calls"] is holds
    assert result.add_up is holds


def test_times_are_those_of_conversations_with_an_insight() -> None:
    """Filtered conversations, which end at once, must not make the others look faster."""
    rows = [row(1, seconds=1), row(2, "cached", seconds=3), row(3, "filtered", seconds=0)]
    result = compute_figures(["c1", "c2", "c3"], rows, Calls(None, 0), 0)
    assert (result.p50_s, result.p95_s) == (1.0, 3.0)


def test_cost_is_the_sum_of_the_rows() -> None:
    """10^10 ticks are a dollar."""
    assert compute_figures([], [row(1)], Calls(None, 0), 15 * 10**9).cost_usd == 1.5


@pytest.mark.parametrize(("percent", "expected"), [(50, 2.0), (75, 3.0), (76, 4.0), (100, 4.0), (0, 1.0)])
def test_percentiles_are_by_nearest_rank(percent: float, expected: float) -> None:
    """Always a value that occurred."""
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == expected


def test_no_values_have_no_percentile() -> None:
    """It is None and not zero: nothing was measured."""
    assert percentile([], 50) is None


def example(number: int, sentiment: Sentiment, urgency: Urgency, *, summary: str = "") -> Example:
    said = summary or f"something worth a line, number {number}"
    return Example(f"c{number}", "star", sentiment, 0.0, urgency, (), "inform", said)


def test_examples_differ_in_sentiment_and_urgency() -> None:
    """Many similar ones do not crowd out the few others; the most urgent comes first."""
    alike = [example(number, "neutral", "low") for number in range(50)]
    picked = pick_examples([*alike, example(98, "positive", "low"), example(99, "negative", "critical")], 3)
    assert [(insight.sentiment, insight.urgency) for insight in picked] == [
        ("negative", "critical"),
        ("neutral", "low"),
        ("positive", "low"),
    ]


def test_no_summary_is_shown_twice() -> None:
    """Fewer are shown rather than the same again."""
    same = [example(number, "neutral", "low", summary="the very same sentence") for number in range(5)]
    assert len(pick_examples(same, 3)) == 1


def test_the_order_of_the_insights_does_not_matter() -> None:
    """Rows come in no order."""
    insights = [example(number, "neutral", "low") for number in range(30)]
    seed = random.randrange(2**32)
    shuffled = random.Random(seed).sample(insights, len(insights))
    assert pick_examples(shuffled, 5) == pick_examples(insights, 5), f"seed {seed}"


CLEAR = Example("clear", "star", "negative", -0.8, "low", ("bank account",), "report_fraud", "Someone took my money!")


@pytest.mark.parametrize(
    "unclear",
    [
        {"sentiment_score": -0.3},
        {"sentiment": "positive", "sentiment_score": 0.8},
        {"intent": "make_booking"},
        {"intent": "give_praise"},
        {"intent": "inform", "sentiment": "neutral", "sentiment_score": 0.0},
        {"topics": ()},
        {"summary": "Someone took my money..."},
        {"summary": "@anonymous took my money!"},
        {"summary": "It is gone!"},
    ],
)
def test_an_example_that_contradicts_itself_is_the_last_choice(unclear: dict[str, Any]) -> None:
    """However urgent it is. It is shown where there are no others."""
    other = replace(CLEAR, id="unclear", summary="A thief took all of my money!", urgency="critical")
    assert pick_examples([other, CLEAR], 1) == [other]
    wrong = replace(other, **unclear)
    assert pick_examples([wrong, CLEAR], 1) == [CLEAR]
    assert pick_examples([wrong, CLEAR], 2) == [wrong, CLEAR]


@pytest.mark.parametrize(
    ("sentiment", "score", "intent"), [("positive", 0.8, "give_praise"), ("neutral", 0.0, "make_booking")]
)
def test_praise_and_plain_requests_are_examples_too(sentiment: Sentiment, score: float, intent: str) -> None:
    """A demo of complaints alone would show too little."""
    other = replace(CLEAR, id="other", sentiment=sentiment, sentiment_score=score, intent=intent, urgency="critical")
    assert pick_examples([CLEAR, other], 1) == [other]


SUMMARY = "I ordered two weeks ago, and nothing has come so far, so please tell me where it is [now]."


def report(*, calls: int = 1) -> Report:
    rows = [Row("c1", "analysed", None, RECEIVED, RECEIVED + timedelta(seconds=2), "t1")]
    example = Example("c1", "star", "negative", -0.5, "high", ("order",), "ask_status", SUMMARY)
    options = Options("tansu", 2, "standin", None, Path("data"))
    made = compute_figures(["c1"], rows, Calls(calls, 1), 10**9)
    return Report(options, made, [example], 0, {"tansu": 1}, {"start": 3.0, "post": 1.0})


def printed(*, is_terminal: bool, calls: int = 1) -> str:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=is_terminal, no_color=True, highlight=False)
    print_report(report(calls=calls), console)
    return file.getvalue()


def test_the_document_is_json_with_all_figures() -> None:
    """It has the sums, the calls, the checks and how times were measured."""
    shown = json.loads(json.dumps(document(report())))
    assert shown["ok"] is True
    assert shown["conversations"] == {"in": 1, "analysed": 1, "cached": 0, "filtered": 0, "dead": 0}
    assert (shown["calls"]["provider"], shown["distinct_texts"], shown["cost_usd"]) == (1, 1, 0.1)
    assert shown["seconds_to_insight"]["p95"] == 2.0
    assert "received_at" in shown["seconds_to_insight"]["measured"]
    assert shown["examples"][0]["summary"] == SUMMARY


def test_a_pipe_gets_whole_cells_with_tabs() -> None:
    """Nothing is cut or wrapped at 80 columns, and no escape code is in it."""
    lines = printed(is_terminal=False).splitlines()
    assert lines[0].split("\t") == ["insight", "high", "negative", "-0.50", "ask_status", SUMMARY, "c1"]
    assert "conversations in\t1\tposted over HTTP and accepted with 202" in lines
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_no_line_that_is_too_long() -> None:
    """80 columns are enough; what a person wrote is not read as markup."""
    shown = Text.from_ansi(printed(is_terminal=True)).plain
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split("\n")[1] == "  some of the insights"
    assert SUMMARY in " ".join(shown.split())


def test_a_check_that_failed_says_so_in_words() -> None:
    """Not by colour alone."""
    for is_terminal in (True, False):
        assert "FAILED" in printed(is_terminal=is_terminal, calls=2)
        assert "2 calls is not 1 distinct texts" in printed(is_terminal=is_terminal, calls=2)


def test_calls_are_read_from_the_metrics() -> None:
    """Only the counter itself, whatever else is exposed."""
    exposition = "# HELP grok_calls_total x\n# TYPE grok_calls_total counter\ngrok_calls_total 12.0\n"
    assert calls_in(exposition + '# TYPE grok_call_errors_total counter\ngrok_call_errors_total{class="x"} 3.0\n') == 12
