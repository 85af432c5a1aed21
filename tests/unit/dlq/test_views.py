"""What is shown never holds what a conversation says, and does a terminal no harm."""

import orjson
from rich.console import Console

from schemas.kafka import Origin
from streams.dlq import views
from streams.dlq.account import account_of
from streams.dlq.ledger import Mark
from streams.dlq.replay import Replayed
from streams.dlq.survey import Entry, Survey
from tests.fakes.analysis import NOON
from tests.support.topics import TOPICS
from tests.unit.dlq.factories import letter

SECRET = b"my card number is 4111"
MARK = Mark(0, NOON, Origin("conversations", 5, 6))


def test_no_view_shows_the_value() -> None:
    """Neither the table, nor the lines, nor JSON, nor the facts."""
    one = letter(value=SECRET)
    entry = Entry(one, one.size_bytes, None)
    console = Console(width=200)
    with console.capture() as drawn:
        console.print(views.table([entry], TOPICS.conversations))
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
        console.print(views.table([entry], TOPICS.conversations))
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


def test_counts_end_with_one_outcome_line() -> None:
    """For a list, a dry run and a replay, the last two also as JSON with the same numbers."""
    survey = Survey(replayed=3, foreign=1, too_often=2, filtered=4)
    survey.unresolved.update(refused=7, unknown=1)
    survey.to_send.update(refused=5)
    assert views.survey_lines(survey)[-1].strip() == "8  unresolved, 3 replayed already"
    skipped = "skipped 9 (3 already replayed, 2 too often, 4 filtered out)"
    planned = account_of(survey, Replayed(), 4)
    assert views.plan_lines(survey, planned)[-1] == f"would send 4, {skipped}, left 1; 1 cannot be sent"
    assert views.plan_document(survey, planned)["sent"] == 0
    done = Replayed(marked=2, failed=1)
    done.sent["refused"] = 3
    account = account_of(survey, done, 4)
    told = views.replay_lines(done, account)[-1]
    assert told == f"sent 3 (1 without a mark, which the next run sends again), {skipped}, left 2, failed 1"
    document = views.replay_document(done, account)
    assert (document["sent"], document["left"], document["failed"]) == (3, 2, 1)
    assert document["skipped"] == {"replayed_already": 3, "too_often": 2, "filtered": 4}


def test_the_tenant_is_shown() -> None:
    """In the list, in the facts and in JSON: the same id may be two tenants'."""
    one = letter(headers=[("tenant", b"acme")])
    assert views.row(Entry(one, 0, None))[views.COLUMNS.index("tenant")] == "acme"
    assert dict(views.facts(one, None))["tenant"] == "acme"
    assert views.document(one, 0, None)["tenant"] == "acme"
