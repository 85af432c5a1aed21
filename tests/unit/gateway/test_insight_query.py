"""Filters and cursors: parsing from HTTP, and the SQL of a filter."""

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies

from schemas.errors import Rejected
from streams.gateway.insights import Cursor, decode_cursor, parse_filter, sql_condition

ids = strategies.text(
    strategies.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=256
)
times = strategies.datetimes(
    min_value=datetime(2, 1, 1),
    max_value=datetime(9998, 1, 1),
    timezones=strategies.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))]),
)


@given(occurred_at=times, conversation_id=ids)
def test_a_cursor_comes_back_as_it_went(occurred_at: datetime, conversation_id: str) -> None:
    """Time to the microsecond and id survive; the token needs no escaping in a URL."""
    token = Cursor(occurred_at, conversation_id).encode()
    assert decode_cursor(token) == Cursor(occurred_at.astimezone(UTC), conversation_id)
    assert token.replace("-", "").replace("_", "").isalnum()


def _token(json: str) -> str:
    return base64.urlsafe_b64encode(json.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "%%%",
        "é",
        "\ud800",
        "A" * 5000,
        _token("[]"),
        _token('["2026-01-31T12:00:00","id"]'),
        _token('["2026-01-31T12:00:00+02:00","id"]'),
        _token('["0001-01-01T00:00:00+14:00","id"]'),
        _token('["2026-01-31T12:00:00Z",""]'),
        _token('["2026-01-31T12:00:00Z",1]'),
        _token('["2026-01-31T12:00:00Z","a\\u0000b"]'),
        _token('["2026-01-31T12:00:00Z","id","more"]'),
        _token('["2026-01-31T12:00:00Z","id"]') + "=",
    ],
)
def test_anything_else_is_refused(token: str) -> None:
    """A bad cursor is 400 with its own code and field, whatever it holds."""
    with pytest.raises(Rejected) as caught:
        decode_cursor(token)
    assert (caught.value.status, caught.value.code, caught.value.field) == (400, "invalid_cursor", "cursor")


def test_all_filters_become_bound_parameters() -> None:
    """The tenant is always the first condition, and no value is ever part of the SQL."""
    query = {"topic": "x' OR 1=1 --", "since": "2026-01-31T14:00:00+02:00", "outcome": "cached", "limit": "3"}
    where, parameters = sql_condition("acme", parse_filter(query))
    assert where == "tenant = $1 AND occurred_at >= $2 AND $3 = ANY(topics) AND outcome = $4"
    assert parameters == ["acme", datetime(2026, 1, 31, 12, tzinfo=UTC), "x' OR 1=1 --", "cached"]


def test_no_filter_is_the_tenant_alone() -> None:
    """Even an empty query never reaches another tenant's rows."""
    assert sql_condition("acme", parse_filter({})) == ("tenant = $1", ["acme"])


def test_an_unescaped_plus_in_a_time_is_understood() -> None:
    """A + in a query string means a space; times are where that bites."""
    assert parse_filter({"since": "2026-01-31T12:00:00 00:00"})["since"] == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("since", "yesterday"),
        ("since", "2026-01-31T12:00:00"),
        ("until", "0001-01-01T00:00:00+14:00"),
        ("until", ""),
        ("sentiment", "angry"),
        ("urgency", "HIGH"),
        ("outcome", "lost"),
        ("topic", ""),
        ("topic", "a\0b"),
        ("source", "\udcff"),
        ("source", "s" * 129),
    ],
)
def test_a_wrong_value_names_its_parameter(name: str, value: str) -> None:
    """400 with the parameter as the field."""
    with pytest.raises(Rejected) as caught:
        parse_filter({name: value})
    assert (caught.value.status, caught.value.code, caught.value.field) == (400, "invalid_parameter", name)
