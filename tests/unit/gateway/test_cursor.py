"""The cursor's token: it comes back as it went, and nothing else is taken."""

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies

from schemas.errors import Rejected
from streams.gateway.cursor import Cursor, cursor_after, decode_cursor

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
    token = cursor_after(occurred_at, conversation_id)
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
