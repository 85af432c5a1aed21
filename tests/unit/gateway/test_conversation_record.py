"""The record a conversation becomes: key, value, CloudEvents headers."""

from datetime import UTC, datetime

import pytest

from agents.text_key import text_key
from schemas.conversation import Conversation, decode_conversation
from streams.gateway.publisher import conversation_record

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_equal_texts_get_equal_keys() -> None:
    """White space, Unicode composition, id and metadata make no difference."""
    one = conversation_record(Conversation(id="a", text="caf\u00e9  please"), "default", NOW, None)
    two = conversation_record(
        Conversation(id="b", text=" cafe\u0301\nplease ", metadata={"a": 1}), "default", NOW, None
    )
    assert one.key == two.key == text_key("default", "caf\u00e9 please").encode()


def test_the_value_is_the_conversation() -> None:
    """What is in the topic decodes to what was accepted, the id included."""
    conversation = Conversation(id="a", text="hello there", occurred_at=NOW)
    record = conversation_record(conversation, "default", NOW, None)
    assert decode_conversation(record.value, from_topic=True)[0] == conversation


def test_headers_are_cloudevents_in_binary_mode() -> None:
    """The required attributes, the content type, the tenant and the trace."""
    headers = dict(conversation_record(Conversation(id="ä", text="hello"), "acme", NOW, PARENT).headers)
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": "ä".encode(),
        "ce_type": b"grok-insights.conversation",
        "ce_source": b"/gateway",
        "ce_time": b"2026-01-31T12:00:00+00:00",
        "content-type": b"application/json",
        "tenant": b"acme",
        "traceparent": PARENT.encode(),
    }


@pytest.mark.parametrize(
    "parent",
    ["", PARENT.upper(), PARENT + "-00", PARENT[:-1], "ff" + PARENT[2:], f"00-{'0' * 32}-{'1' * 16}-01", PARENT + "\n"],
)
def test_an_invalid_traceparent_is_left_out(parent: str) -> None:
    """It starts no broken trace, and the conversation is accepted."""
    headers = dict(conversation_record(Conversation(id="a", text="hello"), "default", NOW, parent).headers)
    assert "traceparent" not in headers
