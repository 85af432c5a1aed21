"""The audit's report for people and programs."""

import io

import pytest
from rich.console import Console

from schemas.errors import Fatal
from schemas.kafka import Origin
from streams.operations.audit.findings import Discrepancy, Reconciliation, Status, group_progress
from streams.operations.audit.observations import conversation_key
from streams.operations.audit.report import conclusion, document, print_report
from tests.support.topics import TOPICS

ORIGIN = Origin("conversations", 3, 42)


def result_with(status: Status, why: str = "", conversation_id: str = "c1") -> Reconciliation:
    result = Reconciliation(TOPICS.inputs, 20)
    counts = result.counts("conversations", 3)
    counts.records += 1
    result.ids["distinct"] += 1
    result.add(counts, conversation_key("acme", conversation_id), ORIGIN, status, why)
    result.check()
    return result


def printed(result: Reconciliation, *, is_terminal: bool = False, width: int = 120) -> str:
    stream = io.StringIO()
    print_report(result, Console(file=stream, force_terminal=is_terminal, width=width, color_system=None))
    return stream.getvalue()


def test_the_last_line_is_the_conclusion() -> None:
    """It names pending records, which prove nothing yet."""
    assert printed(result_with(Status.ANALYSED)).splitlines()[-1] == "reconciled"
    assert conclusion(result_with(Status.PENDING)) == "reconciled; pending: 1"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_finding_has_id_origin_and_reason(is_terminal: bool) -> None:
    """On a terminal as in a pipe."""
    out = printed(result_with(Status.MISSING, "neither row nor dead letter"), is_terminal=is_terminal)
    [line] = [line for line in out.splitlines() if "c1" in line]
    assert all(part in line for part in ("missing", "acme:c1", "conversations/3/42", "neither row nor dead letter"))
    assert out.splitlines()[-1].strip() == "not reconciled: 1 missing"


def test_lines_in_a_pipe_have_one_cell_for_each_column() -> None:
    """For `cut`."""
    head, line, total, *_ = [line.split("\t") for line in printed(result_with(Status.DEAD)).splitlines()]
    assert len(head) == len(line) == len(total)
    assert dict(zip(head, line, strict=True))["dead"] == "1"
    assert line[0] == "conversations/3"


@pytest.mark.parametrize(("width", "column"), [(120, "missing"), (80, "failed")])
def test_a_narrow_terminal_has_one_column_for_all_failures(width: int, column: str) -> None:
    """And none while nothing is wrong."""
    good, bad = (
        printed(result_with(status), is_terminal=True, width=width) for status in (Status.DEAD, Status.MISSING)
    )
    assert column in bad.splitlines()[1].split()
    assert column not in good.splitlines()[1].split()


def test_control_characters_in_an_id_are_escaped() -> None:
    """Any program may have written the row."""
    out = printed(result_with(Status.MISSING, "x", "a\x1b[2Jb"))
    assert "\x1b" not in out
    assert "a\\x1b[2Jb" in out


@pytest.mark.parametrize("is_terminal", [True, False])
def test_foreign_ids_and_topics_are_shown_literally_and_truncated(is_terminal: bool) -> None:
    """They are not treated as markup, and a long one hides nothing else."""
    result = result_with(Status.MISSING, "x", "[red]" + "y" * 100_000)
    origin = Origin("\x9b2J[bold]" + "z" * 100_000, 1, 2)
    result.add(result.counts("[blue]", 1), b"\xff", origin, Discrepancy.ORPHANED, "w")
    out = printed(result, is_terminal=is_terminal)
    assert len(out) < 5_000
    assert "\x9b" not in out
    assert all(part in out for part in ("[red]yyy", "[blue]/1", "[bold]zzz"))
    shown = document(result)
    assert len(str(shown)) < 5_000
    assert "\x9b" not in shown["findings"][1]["topic"]


def test_unverifiable_records_are_part_of_the_conclusion() -> None:
    """In the text, in the document, and in the partition's line; a strict audit fails on them."""
    for strict in (False, True):
        result = Reconciliation(TOPICS.inputs, 20, strict=strict)
        result.add_progress("conversations", 3, group_progress(10, None, 90))
        expected = "not reconciled: 10 unverifiable" if strict else "reconciled; unverifiable: 10"
        shown = document(result)
        assert (conclusion(result), shown["verdict"], shown["unverifiable"]) == (expected, expected, 10)
        assert shown["balanced"] is not strict
        assert shown["partitions"][0]["unverifiable"] == 10
        assert "unverifiable" in printed(result, is_terminal=True)
    result = result_with(Status.MISSING)
    result.add_progress("conversations", 3, group_progress(10, None, 90))
    assert conclusion(result) == "not reconciled: 1 missing; unverifiable: 10"


def test_the_document_holds_every_count() -> None:
    """And the findings, each with what it is."""
    shown = document(result_with(Status.INCOMPLETE, "no event"))
    assert (shown["balanced"], shown["wrong"], shown["total"]["incomplete"]) == (False, {"incomplete": 1}, 1)
    assert shown["partitions"] == [{"topic": "conversations", "partition": 3, **shown["total"]}]
    [finding] = shown["findings"]
    assert (finding["tenant"], finding["id"], finding["offset"]) == ("acme", "c1", 42)


def test_an_audit_whose_own_sums_differ_proves_nothing() -> None:
    """A record that was read and has no status, or two."""
    result = result_with(Status.ANALYSED)
    result.counts("conversations", 3).records += 1
    with pytest.raises(Fatal, match="do not add up"):
        result.check()
