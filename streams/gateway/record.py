"""A checked conversation as a record of the topic `conversations`: key, value and CloudEvents headers. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime

from agents.canonical_text import canonical_text, text_key
from schemas.conversation import Conversation
from schemas.kafka import EventType, Header

_SAME_FOR_ALL = (
    (Header.SPEC_VERSION, b"1.0"),
    (Header.TYPE, EventType.CONVERSATION.value.encode()),
    (Header.SOURCE, b"/gateway"),
    (Header.CONTENT_TYPE, b"application/json"),
)
#: W3C Trace Context, version 00; a version that is yet to come starts with the same 55 characters.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ConversationRecord:
    """Ready to be sent. The key is the text key, whose hash is the partition in which equal texts meet."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def conversation_record(
    conversation: Conversation, tenant: str, now: datetime, traceparent: str | None
) -> ConversationRecord:
    """`conversation` has an id; `now` is aware; a traceparent that is no valid one is left out."""
    assert conversation.id is not None
    headers = [
        *_SAME_FOR_ALL,
        (Header.ID, conversation.id.encode()),
        (Header.TIME, now.isoformat().encode()),
        (Header.TENANT, tenant.encode()),
    ]
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        headers.append((Header.TRACEPARENT, traceparent.encode()))
    key = text_key(tenant, canonical_text(conversation)).encode()
    return ConversationRecord(key, conversation.encode(), headers)
