"""A letter is read back as it was written, and what a replay sends is the original record."""

from datetime import UTC, datetime

import pytest

from schemas.kafka import Header, Origin
from streams.dlq.letter import REPLAY_COUNT, REPLAY_LETTER, LetterId, outgoing, parse_letter_id, read_letter
from tests.fakes.analysis import NOON
from tests.unit.dlq.factories import EARLIER, WRITTEN_MS, letter, record


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3:17", LetterId(3, 17)), ("0:0", LetterId(0, 0)), ("3", None), ("a:1", None), ("-1:2", None), ("1:2:3", None)],
)
def test_a_letter_is_named_by_its_place(text: str, expected: LetterId | None) -> None:
    """partition:offset, and nothing else."""
    assert parse_letter_id(text) == expected
    assert expected is None or str(expected) == text


def test_what_the_sink_wrote_is_read_back() -> None:
    """Reason, detail, origin, time and original key; the record's own headers without ours."""
    read = letter(headers=[("tenant", b"acme"), ("x", b"\xff"), ("none", None)], extra=[("dlq.new", b"?")])
    assert (read.id, read.reason, read.detail) == (LetterId(3, 7), "refused", "the provider refused")
    assert (read.origin, read.at, read.original_key) == (Origin("conversations", 1, 2), NOON, b"key")
    assert read.headers == [("tenant", b"acme"), ("x", b"\xff"), ("none", None)]


def test_a_foreign_record_is_shown_with_what_it_has() -> None:
    """Anyone may write to the topic: no header, or broken ones, stop no listing."""
    broken = [("dlq.partition", b"x"), ("dlq.at", b"\xff"), ("dlq.topic", None), ("dlq.truncated_from_bytes", b"1e3")]
    for headers in ([], broken):
        read = read_letter(record(headers=headers))  # type: ignore[arg-type]
        assert (read.origin, read.reason, read.truncated_from_bytes) == (None, "unknown", None)
        assert read.at == datetime.fromtimestamp(WRITTEN_MS / 1000, UTC)


def test_a_replay_sends_the_original_key_value_and_headers() -> None:
    """Nothing of the letter is left but its name, the newest one where the record was replayed before."""
    before = [("tenant", b"acme"), (Header.TIME, EARLIER.isoformat().encode()), (REPLAY_LETTER, b"0:0")]
    sent = outgoing(letter(headers=before), b"value")
    assert (sent.key, sent.value) == (b"key", b"value")
    assert sent.headers == [*before[:2], (REPLAY_LETTER, b"3:7"), (REPLAY_COUNT, b"1")]


def test_a_replay_is_counted_in_the_record() -> None:
    """What stands in the header but is no number counts as none."""
    again = letter(headers=[(REPLAY_COUNT, b"2")])
    assert again.replays == 2
    assert dict(outgoing(again, b"").headers)[REPLAY_COUNT] == b"3"
    assert letter(headers=[(REPLAY_COUNT, b"-1")]).replays == 0


def test_the_tenant_is_the_one_that_the_pipeline_reads() -> None:
    """The last header of that name, or the default."""
    assert letter().tenant == "default"
    assert letter(headers=[("tenant", b"old"), ("tenant", b"acme")]).tenant == "acme"


@pytest.mark.parametrize("stated", [[], [(Header.TIME, b"yesterday")], [(Header.TIME, b"9999-01-01T00:00:00Z")]])
def test_a_replay_makes_no_conversation_newer(stated: list[tuple[str, bytes]]) -> None:
    """A newer one of the same id may have come between receipt and death: it must win all the same."""
    assert dict(outgoing(letter(headers=stated), b"").headers)[Header.TIME] == EARLIER.isoformat().encode()


def test_a_record_of_neither_key_nor_value_can_be_sent() -> None:
    """Kafka's clients refuse such a record; an empty value dies the same death."""
    assert outgoing(letter(key=None, value=None), None)[:2] == (None, b"")
    assert outgoing(letter(value=None), None)[:2] == (b"key", None)
