"""Reports never show what a conversation says, and cannot control a terminal."""

from dataclasses import replace

import orjson
import pytest
from rich.console import Console
from rich.table import Table

from schemas.dead_letter import DeadLetterReason
from schemas.kafka import Origin
from streams.operations.dlq import report
from streams.operations.dlq.ledger import ReplayMark
from streams.operations.dlq.replay import ReplayResult
from streams.operations.dlq.selection import Eligibility, Survey
from tests.support.factories import NOON
from tests.unit.operations.dlq.factories import dead_letter

SECRET = b"my card number is 4111"
MARK = ReplayMark(0, NOON, Origin("conversations", 5, 6))


def drawn(table: Table, width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_no_report_shows_the_value() -> None:
    """Neither the table, nor the lines, nor JSON, nor the facts."""
    one = dead_letter(value=SECRET)
    table = drawn(report.table([(one, None)], 200))
    shown = table + str(report.row(one, None)) + str(report.facts(one, None))
    shown += orjson.dumps(report.document(one, None)).decode()
    assert SECRET.decode() not in shown
    assert "the provider refused" in table
    assert "replayed at" not in table


@pytest.mark.parametrize(
    ("tenant", "mark", "header"),
    [
        (b"default", None, "ID  died at reason conversation detail"),
        (b"a-tenant-of-ours", MARK, "ID  died at reason tenant conversation replayed at detail"),
    ],
)
def test_a_list_fits_a_terminal_of_80_columns(tenant: bytes, mark: ReplayMark | None, header: str) -> None:
    """One line each, with the ID first, which `dlq show` and `dlq replay` take, and nothing of it cut."""
    one = dead_letter(headers=[("tenant", tenant)], reason=max(DeadLetterReason, key=len), detail="x" * 99)
    one = replace(one, conversation_id="conversation-" * 9)
    head, line = drawn(report.table([(one, mark)], 80), width=80).splitlines()
    assert head.split() == header.split()
    assert line.split()[0] == str(one.id)
    assert max(DeadLetterReason, key=len) in line
    assert "\u2026" in line
    assert len(line) <= 80


def test_a_cell_is_not_treated_as_markup() -> None:
    """rich would show it as a style, or fail."""
    table = drawn(report.table([(dead_letter(detail="[/red] [bold]x"), MARK)], 200))
    assert "[/red] [bold]x" in table
    assert "replayed at" in table


def test_the_facts_say_where_to_a_dead_letter_was_replayed() -> None:
    """And that it was truncated, and its headers."""
    one = dead_letter(headers=[("tenant", b"acme")], extra=[("dlq.truncated_from_bytes", b"900")])
    facts = dict(report.facts(one, MARK))
    assert facts["replayed"] == f"{NOON.isoformat()} to conversations 5:6"
    assert facts["bytes"].endswith("(truncated from 900)")
    assert facts["header"] == "tenant: acme"


def test_a_value_that_is_not_text_is_base64() -> None:
    """JSON holds no bytes."""
    assert report.value_document(b"{}") == {"value": "{}"}
    assert report.value_document(b"\xff") == {"value_base64": "/w=="}
    assert report.value_document(None) == {"value": None}


def test_counts_end_with_one_line_of_outcome() -> None:
    """For a list, a dry run and a replay, the last two also as JSON with the same numbers."""
    survey = Survey()
    survey.by.update(
        {Eligibility.REPLAYED: 3, Eligibility.FOREIGN: 1, Eligibility.TOO_OFTEN: 2, Eligibility.FILTERED: 4}
    )
    survey.unresolved.update(refused=7, unknown=1)
    survey.eligible.update(refused=5)
    assert report.survey_lines(survey)[-1].strip() == "8  unresolved, 3 already replayed"
    skipped = "skipped 9 (3 already replayed, 2 too often, 4 filtered out)"
    plan = report.ReplayReport(survey, None, 4)
    assert plan.lines()[-1] == f"would send 4, {skipped}, left 1; 1 cannot be sent"
    assert plan.document()["sent"] == 0
    result = ReplayResult(marked=2, failed=1)
    result.sent["refused"] = 3
    outcome = report.ReplayReport(survey, result, 4)
    expected = f"sent 3 (1 without a mark, which the next run sends again), {skipped}, left 2, failed 1"
    assert outcome.lines()[-1] == expected
    document = outcome.document()
    assert (document["sent"], document["left"], document["failed"]) == (3, 2, 1)
    assert document["skipped"] == {"replayed_already": 3, "too_often": 2, "filtered": 4}


def test_the_conversation_and_the_keys_are_shown() -> None:
    """The key is not the conversation's id, though it may look like one."""
    one = replace(dead_letter(key=b"original"), key=b"\xff", conversation_id="c-1\n")
    assert report.row(one, None)[report.COLUMNS.index("conversation")] == "c-1\\n"
    facts, document = dict(report.facts(one, None)), report.document(one, None)
    assert (facts["id"], facts["key"], facts["original key"]) == ("c-1\\n", "\ufffd", "original")
    assert (document["id"], document["key"]) == ("c-1\n", "\ufffd")


def test_the_tenant_is_shown() -> None:
    """In the list, in the facts and in JSON: two tenants may use the same id."""
    one = dead_letter(headers=[("tenant", b"acme")])
    assert report.row(one, None)[report.COLUMNS.index("tenant")] == "acme"
    assert dict(report.facts(one, None))["tenant"] == "acme"
    assert report.document(one, None)["tenant"] == "acme"
