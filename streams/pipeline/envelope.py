"""Record -> Envelope: the checked conversation with all that later steps ask of it, or the reason why it is dead."""

import re
from dataclasses import dataclass
from datetime import datetime

from agents.canonical_text import canonical_text, text_key
from schemas.conversation import Conversation, decode_conversation
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Rejected, Unprocessable
from schemas.kafka import DEFAULT_TENANT, Header
from streams.pipeline.record import Record

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REASON_OF_STATUS = {400: DeadLetterReason.UNDECODABLE, 413: DeadLetterReason.TOO_LARGE}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A conversation that can be worked on; `occurred_at` falls back to the time of receipt."""

    tenant: str
    id: str
    conversation: Conversation
    text: str
    text_key: str
    occurred_at: datetime


def open_envelope(record: Record) -> Envelope:
    """Raises Unprocessable with the dead letter's reason; the detail names the field and never quotes the value."""
    tenant = _tenant(record)
    conversation = _conversation(record)
    assert conversation.id is not None, "decode_conversation(require_id=True) saw to it"
    text = canonical_text(conversation)
    return Envelope(
        tenant=tenant,
        id=conversation.id,
        conversation=conversation,
        text=text,
        text_key=text_key(tenant, text),
        occurred_at=conversation.occurred_at or record.received_at,
    )


def _tenant(record: Record) -> str:
    tenant = record.header(Header.TENANT) or DEFAULT_TENANT
    if not _TENANT.fullmatch(tenant):
        raise Unprocessable(DeadLetterReason.BAD_TENANT, "tenant: 1 to 64 letters, digits, dots, dashes")
    return tenant


def _conversation(record: Record) -> Conversation:
    try:
        return decode_conversation(record.value or b"", require_id=True)
    except Rejected as error:
        reason = _REASON_OF_STATUS.get(error.status, DeadLetterReason.INVALID)
        field = f"{error.field}: " if error.field else ""
        raise Unprocessable(reason, f"{field}{error.detail} ({error.code})") from error
