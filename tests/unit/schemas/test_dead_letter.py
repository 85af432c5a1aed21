"""A dead letter keeps the original record and the reason of its death."""

from datetime import UTC, datetime

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import Origin

RECEIVED = datetime(2026, 1, 31, 11, tzinfo=UTC)
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def dead_letter_of(headers: list[tuple[str, bytes]], key: bytes | None = b"k") -> DeadLetter:
    origin = Origin("conversations", 3, 42)
    return DeadLetter(key, b"not json", headers, DeadLetterReason.UNDECODABLE, "not_json", origin, RECEIVED, AT)


def test_original_headers_stay_and_ours_follow() -> None:
    """Reason, detail, place and time are added; the producer's headers are unchanged."""
    out = dict(dead_letter_of([("tenant", b"acme"), ("x", b"\xff")]).headers_out())
    assert (out["tenant"], out["x"], out["dlq.key"]) == (b"acme", b"\xff", b"k")
    assert (out["dlq.reason"], out["dlq.topic"]) == (b"undecodable", b"conversations")
    assert (out["dlq.partition"], out["dlq.offset"], out["dlq.at"]) == (b"3", b"42", b"2026-01-31T12:00:00+00:00")
    assert out["dlq.received_at"] == b"2026-01-31T11:00:00+00:00"


def test_a_second_death_has_its_own_reason() -> None:
    """Headers of an earlier dead letter are replaced, not doubled."""
    old = [(name, b"old") for name in ("dlq.reason", "dlq.key", "dlq.conversation_id")]
    names = [name for name, _ in dead_letter_of(old, key=None).headers_out()]
    assert names.count("dlq.reason") == 1
    assert not {"dlq.key", "dlq.conversation_id"} & set(names)
