"""What is shown never holds what a conversation says, and does a terminal no harm."""

import orjson
import pytest
from rich.console import Console

from schemas.topics import Origin
from streams.dlq import views
from streams.dlq.ledger import Mark
from streams.dlq.replay import Replayed
from streams.dlq.survey import Entry, Survey
from tests.fakes.analysis import NOON
from tests.unit.dlq.factories import letter

SECRET = b"my card number is 4111"
MARK = Mark(0, NOON, Origin("conversations", 5, 6))


@pytest.mark.parametrize(
    ("given", "shown"),
    [(None, ""), ("a\tb", "a\\tb"), (b"\x1b[2J", "\\x1b[2J"), (b"\xff", "\ufffd"), ("Grüße", "Grüße")],
)
def test_control_characters_are_escaped(given: bytes | str | None, shown: str) -> None:
    """A foreign key must not move the cursor, nor make two lines of one."""
    assert views.printable(given) == shown


def test_no_view_shows_the_value() -> None:
    """Neither the table, nor the lines, nor JSON, nor the facts."""
    one = letter(value=SECRET)
    entry = Entry(one, one.size_bytes, None)
    console = Console(width=200)
    with console.capture() as drawn:
        console.print(views.table([entry]))
    shown = drawn.get() + str(views.row(entry)) + str(views.facts(one, None))
    shown += orjson.dumps(views.document(one, one.size_bytes, None)).decode()
    assert SECRET.decode() not in shown
    assert "the provider refused" in drawn.get()
    assert "replayed at" not in drawn.get()


def test_a_key_is_no_markup() -> None:
    """rich would take it for a colour, or fail."""
    console = Console(width=200)
    entry = Entry(letter(detail="[/red] [bold]x"), 0, MARK)
    with console.capture() as drawn:
        console.print(views.table([entry]))
    assert "[/red] [bold]x" in drawn.get()
    assert "replayed at" in drawn.get()


def test_the_facts_tell_where_a_letter_was_sent() -> None:
    """And that it was cut, and its headers."""
    one = letter(headers=[("tenant", b"acme")], extra=[("dlq.truncated_from_bytes", b"900")])
    told = dict(views.facts(one, MARK))
    assert told["replayed"] == f"{NOON.isoformat()} to conversations 5:6"
    assert told["bytes"].endswith("(cut from 900)")
    assert told["header"] == "tenant: acme"


def test_a_value_that_is_no_text_is_base64() -> None:
    """JSON holds no bytes."""
    assert views.value_document(b"{}") == {"value": "{}"}
    assert views.value_document(b"\xff") == {"value_base64": "/w=="}
    assert views.value_document(None) == {"value": None}


def test_counts_end_with_their_sum() -> None:
    """For a list, a dry run and a replay."""
    survey = Survey(replayed=3, foreign=1)
    survey.waiting.update(refused=5, unknown=1)
    assert views.survey_lines(survey)[-1].split() == ["6", "unresolved,", "3", "replayed", "already"]
    planned = views.replay_lines(survey, Replayed(), dry_run=True)
    assert planned[-1].split() == ["5", "would", "be", "replayed,", "1", "cannot", "be,", "3", "are", "already"]
    done = Replayed()
    done.counts["refused"] = 5
    assert views.replay_lines(survey, done, dry_run=False)[-1].split() == ["5", "replayed", "now,", "3", "before"]
    assert views.replay_document(survey, done, dry_run=False)["replayed"] == 5
