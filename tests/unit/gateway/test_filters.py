"""Filters of the list: what is read from a query, and the SQL it becomes."""

from datetime import UTC, datetime

import pytest

from schemas.errors import Rejected
from streams.gateway.filters import read_filter


def test_all_filters_become_bound_parameters() -> None:
    """The tenant is always the first condition, and no value is ever part of the SQL."""
    query = {"topic": "x' OR 1=1 --", "since": "2026-01-31T14:00:00+02:00", "outcome": "cached", "limit": "3"}
    where, parameters = read_filter(query).where("acme")
    assert where == "tenant = $1 AND occurred_at >= $2 AND $3 = ANY(topics) AND outcome = $4"
    assert parameters == ["acme", datetime(2026, 1, 31, 12, tzinfo=UTC), "x' OR 1=1 --", "cached"]


def test_no_filter_is_the_tenant_alone() -> None:
    """Even an empty query never reaches another tenant's rows."""
    assert read_filter({}).where("acme") == ("tenant = $1", ["acme"])


def test_an_unescaped_plus_in_a_time_is_understood() -> None:
    """A + in a query string means a space; times are where that bites."""
    assert read_filter({"since": "2026-01-31T12:00:00 00:00"}).values["since"] == datetime(2026, 1, 31, 12, tzinfo=UTC)


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
        read_filter({name: value})
    assert (caught.value.status, caught.value.code, caught.value.field) == (400, "invalid_parameter", name)
