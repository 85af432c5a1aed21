"""What a record must be to be worked on; everything else has a reason of the closed list."""

import pytest
from streams.pipeline.envelope import open_envelope

from schemas.dead_letter import DeadLetterReason
from schemas.errors import Unprocessable
from tests.unit.pipeline.factories import READ_AT, a_record, value_of


def test_a_plain_record_is_opened() -> None:
    """Tenant and time have defaults: the default tenant, the time of receipt."""
    envelope = open_envelope(a_record(value_of("hello  there friend")))
    assert (envelope.tenant, envelope.id, envelope.text) == ("default", "c-1", "hello there friend")
    assert envelope.occurred_at == READ_AT


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (None, [], DeadLetterReason.UNDECODABLE),
        (b"not json", [], DeadLetterReason.UNDECODABLE),
        (b"\xff", [], DeadLetterReason.UNDECODABLE),
        (b'{"text":"no id"}', [], DeadLetterReason.INVALID),
        (value_of(colour="red"), [], DeadLetterReason.INVALID),
        (value_of("a\0b"), [], DeadLetterReason.INVALID),
        (b" " * 600_000, [], DeadLetterReason.TOO_LARGE),
        (value_of(), [("tenant", b"../etc")], DeadLetterReason.BAD_TENANT),
    ],
)
def test_what_cannot_be_worked_on_has_a_reason(
    value: bytes | None, headers: list[tuple[str, bytes]], reason: DeadLetterReason
) -> None:
    """The reason is one of the closed list."""
    with pytest.raises(Unprocessable) as caught:
        open_envelope(a_record(value, headers=headers))
    assert caught.value.reason == reason
