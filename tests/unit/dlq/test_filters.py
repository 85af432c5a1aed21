"""Filters mean what they say, and a time that is none is refused."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.errors import Fatal
from streams.dlq.filters import filters_of, parse_since
from streams.dlq.letter import read_letter
from tests.fakes.analysis import NOON
from tests.unit.dlq.factories import letter, record


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
def test_a_span_counts_back_from_now(text: str, ago: timedelta) -> None:
    """Seconds, minutes, hours, days, weeks."""
    assert parse_since(text, NOON) == NOON - ago


@pytest.mark.parametrize("text", ["2026-01-31", "2026-01-31T00:00", "2026-01-31T00:00Z", "2026-01-31T02:00+02:00"])
def test_a_time_without_zone_is_utc(text: str) -> None:
    """ISO 8601, with or without the time of day."""
    assert parse_since(text, NOON) == datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2 h", "h", "-2h", "2026-13-01", "999999w"])
def test_what_is_no_time_is_misuse(text: str) -> None:
    """Exit code 2, and the hint shows how."""
    with pytest.raises(Fatal) as error:
        parse_since(text, NOON)
    assert error.value.exit_code == 2
    assert "2h" in error.value.hint


def test_without_filters_every_letter_passes() -> None:
    """And the filters say that they are empty, so that a replay can ask for --all."""
    filters = filters_of([], None, [], [], NOON)
    assert filters.are_empty
    assert filters.match(letter())
    assert filters.match(read_letter(record()))


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
def test_a_letter_must_pass_every_filter(reasons: list[str], since: str | None, ids: list[str], matches: bool) -> None:
    """Within one filter any of its values will do."""
    filters = filters_of(reasons, since, ids, [], NOON)
    assert not filters.are_empty
    assert filters.match(letter()) is matches


@pytest.mark.parametrize(("conversations", "matches"), [(["other", "c-1"], True), (["c-2", "key"], False)])
def test_a_conversation_is_named_by_its_id(conversations: list[str], matches: bool) -> None:
    """Not by the key that its producer gave the record."""
    assert filters_of([], None, [], conversations, NOON).match(letter()) is matches


@pytest.mark.parametrize(
    ("ids", "conversations", "other"), [(["c-1"], [], "--conversation"), ([], ["3:7"], "--id"), ([], [""], "--id")]
)
def test_an_id_of_the_other_form_is_misuse(ids: list[str], conversations: list[str], other: str) -> None:
    """Exit code 2, and the hint names the option that was meant."""
    with pytest.raises(Fatal) as error:
        filters_of([], None, ids, conversations, NOON)
    assert error.value.exit_code == 2
    assert other in error.value.hint
