"""Filters do what they say, and a replay sends a dead letter unless there is a reason not to."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.errors import Fatal
from streams.operations.dlq.dead_letter import REPLAY_COUNT, StoredDeadLetter
from streams.operations.dlq.selection import Eligibility, Filters, Selection, parse_filters, parse_since
from tests.support.factories import NOON
from tests.unit.operations.dlq.factories import dead_letter, foreign, ledger_of


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1w", timedelta(days=7)),
    ],
)
def test_a_duration_counts_back_from_now(text: str, ago: timedelta) -> None:
    """In seconds, minutes, hours, days or weeks."""
    assert parse_since(text, NOON) == NOON - ago


@pytest.mark.parametrize("text", ["2026-01-31", "2026-01-31T00:00", "2026-01-31T00:00Z", "2026-01-31T02:00+02:00"])
def test_a_timestamp_without_a_zone_is_utc(text: str) -> None:
    """ISO 8601, with or without the time of day."""
    assert parse_since(text, NOON) == datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2 h", "h", "-2h", "2026-13-01", "999999w"])
def test_anything_else_is_misuse(text: str) -> None:
    """The error says what is expected."""
    with pytest.raises(Fatal, match="neither a duration \\(2h\\) nor an ISO 8601 timestamp") as error:
        parse_since(text, NOON)
    assert error.value.exit_code == 2


def test_without_filters_every_dead_letter_passes() -> None:
    """The filters know that they are empty, so that a replay can ask for --all."""
    filters = parse_filters([], None, [], [], NOON)
    assert filters.are_empty
    assert filters.match(dead_letter())
    assert filters.match(foreign())


@pytest.mark.parametrize(
    ("reasons", "since", "ids", "matches"),
    [
        (["refused"], None, [], True),
        (["refused", "invalid"], None, [], True),
        (["invalid"], None, [], False),
        ([], "0s", [], True),
        ([], "2026-01-01", [], True),
        ([], "2999-01-01", [], False),
        ([], None, ["3:7"], True),
        ([], None, ["3:8", "2:7"], False),
        (["refused"], None, ["3:8"], False),
        (["invalid"], None, ["3:7"], False),
    ],
)
def test_a_dead_letter_must_pass_every_filter(
    reasons: list[str], since: str | None, ids: list[str], matches: bool
) -> None:
    """Within one filter, any of its values will do."""
    filters = parse_filters(reasons, since, ids, [], NOON)
    assert not filters.are_empty
    assert filters.match(dead_letter()) is matches


@pytest.mark.parametrize(("conversations", "matches"), [(["other", "c-1"], True), (["c-2", "key"], False)])
def test_a_conversation_is_selected_by_its_id(conversations: list[str], matches: bool) -> None:
    """Not by the key that its producer gave the record."""
    assert parse_filters([], None, [], conversations, NOON).match(dead_letter()) is matches


@pytest.mark.parametrize(
    ("ids", "conversations", "other"), [(["c-1"], [], "--conversation"), ([], ["3:7"], "--id"), ([], [""], "--id")]
)
def test_an_id_of_the_other_kind_is_misuse(ids: list[str], conversations: list[str], other: str) -> None:
    """The hint names the option that was meant."""
    with pytest.raises(Fatal) as error:
        parse_filters([], None, ids, conversations, NOON)
    assert error.value.exit_code == 2
    assert other in error.value.hint


REPLAYED = dead_letter(offset=1)
DIED_OFTEN = dead_letter(offset=2, headers=[(REPLAY_COUNT, b"3")])


def selection(*, again: bool = False, filters: Filters | None = None) -> Selection:
    return Selection(filters or Filters(), ledger_of(REPLAYED), again)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (dead_letter(), Eligibility.ELIGIBLE),
        (dead_letter(headers=[(REPLAY_COUNT, b"2")]), Eligibility.ELIGIBLE),
        (REPLAYED, Eligibility.REPLAYED),
        (DIED_OFTEN, Eligibility.TOO_OFTEN),
        (foreign(), Eligibility.FOREIGN),
    ],
)
def test_a_dead_letter_is_eligible_unless_it_was_replayed_died_too_often_or_is_foreign(
    one: StoredDeadLetter, expected: Eligibility
) -> None:
    """And unless it is filtered out."""
    assert selection().eligibility(one) is expected
    assert selection(filters=Filters(frozenset({"invalid"}))).eligibility(one) is Eligibility.FILTERED


def test_again_includes_what_was_replayed_before() -> None:
    """And what died too often, but nothing foreign."""
    again = selection(again=True)
    assert {again.eligibility(one) for one in (dead_letter(), REPLAYED, DIED_OFTEN)} == {Eligibility.ELIGIBLE}
    assert again.eligibility(foreign()) is Eligibility.FOREIGN
