"""Conversation, and decode_conversation: checks sizes, types, NUL and lone surrogates, so that no later step has to."""

import json
from datetime import datetime
from typing import Annotated, Any

import msgspec

from schemas.errors import Rejected
from schemas.instant import Instant

#: Kafka's default limit for a record is 1 MiB, which leaves room for headers and framing.
MAX_VALUE_BYTES = 512 * 1024
MAX_TEXT_CHARS = 100_000
MAX_MESSAGES = 1_000
MAX_ID_CHARS = 256
MAX_SOURCE_CHARS = 128
MAX_METADATA_BYTES = 16 * 1024
MAX_DEPTH = 16
FIRST_YEAR, LAST_YEAR = 1970, 2999


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One turn of a conversation; `role` is free ("user", "agent", ...), `at` is RFC 3339 with an offset."""

    role: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)]
    at: Instant | None = None


class Conversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a producer sends: `text` or `messages`, never both. `id` is None only before the gateway assigns one."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)] | None = None
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)] | None = None
    messages: Annotated[tuple[Message, ...], msgspec.Meta(max_length=MAX_MESSAGES)] | None = None
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SOURCE_CHARS)] | None = None
    occurred_at: Instant | None = None
    metadata: dict[str, Any] | None = None

    def encode(self) -> bytes:
        """Returns the record's value: JSON in UTF-8, without the absent fields."""
        return _encoder.encode(self)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Conversation)


def decode_conversation(value: bytes, *, require_id: bool) -> Conversation:
    """Returns the conversation in JSON bytes, checked.

    Raises Rejected with status 413 (too large), 400 (not JSON, not UTF-8, nested too deeply) or 422 (wrong content);
    `code` is stable and `field` names the part to change. The detail never quotes the input. Checks that the bytes or
    the types already answer are skipped, since this runs for every record.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise Rejected("too_large", f"the conversation is larger than {MAX_VALUE_BYTES} bytes", status=413)
    conversation = _parse(value)
    _check_id(conversation, require_id)
    _check_content(conversation)
    if len(value) > MAX_TEXT_CHARS:  # fewer bytes cannot hold more characters
        _check_length(conversation.messages or ())
    if b"\\" in value and b"\\u0000" in value:  # JSON has no other notation for NUL
        _check_nul(conversation)
    if conversation.metadata is not None:
        _check_metadata(conversation.metadata)
    if conversation.occurred_at is not None:
        _check_time(conversation.occurred_at)
    return conversation


def _parse(value: bytes) -> Conversation:
    try:
        return _decoder.decode(value)
    except msgspec.ValidationError as error:
        raise _rejected_by_schema(error) from error
    except UnicodeDecodeError as error:
        raise Rejected("not_utf8", f"byte {error.start} is not UTF-8", status=400) from error
    except RecursionError as error:
        raise Rejected("too_deep", f"values are nested more than {MAX_DEPTH} deep", status=400) from error
    except msgspec.DecodeError as error:
        raise _rejected_by_syntax(value, error) from error


def _rejected_by_syntax(value: bytes, error: msgspec.DecodeError) -> Rejected:
    """msgspec's messages about syntax name a position and never quote the content."""
    try:
        text = value.decode()
    except UnicodeDecodeError as unicode_error:
        return Rejected("not_utf8", f"byte {unicode_error.start} is not UTF-8", status=400)
    if _is_python_json(text):
        return Rejected("lone_surrogate", "a \\u escape is half of a surrogate pair", status=400)
    return Rejected("not_json", str(error), status=400)


def _is_python_json(text: str) -> bool:
    """Returns whether Python's parser reads the text: it accepts lone surrogates, which msgspec does not."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _rejected_by_schema(error: msgspec.ValidationError) -> Rejected:
    message, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if message.startswith("Object contains unknown field"):
        name = message.partition("`")[2].rstrip("`")
        # The name is the client's own text, so it is shown only if it is a short identifier.
        shown = name if name.isidentifier() and len(name) <= 64 else "?"
        return Rejected("unknown_field", "there is no such field", field=f"{field}.{shown}".lstrip("."))
    if message.startswith("Object missing required field"):
        missing = message.partition("`")[2].rstrip("`")
        return Rejected("missing_field", "this field is required", field=f"{field}.{missing}".lstrip("."))
    code = "too_long" if "length <=" in message else "invalid_value"
    return Rejected(code, message.replace("`", ""), field="metadata" if field.startswith("metadata") else field)


def _check_id(conversation: Conversation, require_id: bool) -> None:
    if conversation.id is None:
        if require_id:
            raise Rejected("missing_field", "a record needs an id", field="id")
        return
    if not conversation.id.isprintable() or conversation.id != conversation.id.strip():
        raise Rejected("invalid_value", "an id is made of printable characters without spaces around it", field="id")


def _check_content(conversation: Conversation) -> None:
    if conversation.text is not None:
        if conversation.messages is not None:
            raise Rejected("text_and_messages", "send either text or messages, not both", field="messages")
        if _is_blank(conversation.text):
            raise Rejected("empty_text", "there is no text in it", field="text")
        return
    if conversation.messages is None:
        raise Rejected("missing_field", "send text or messages", field="text")
    if all(_is_blank(message.text) for message in conversation.messages):
        raise Rejected("empty_text", "there is no text in it", field="messages")


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _check_length(messages: tuple[Message, ...]) -> None:
    """Rejects messages that are too long together; each one's length is part of its type."""
    if sum(len(message.text) for message in messages) > MAX_TEXT_CHARS:
        raise Rejected("too_long", f"the texts have more than {MAX_TEXT_CHARS} characters in all", field="messages")


def _check_nul(conversation: Conversation) -> None:
    """Rejects NUL, which neither text nor jsonb can store in Postgres, before it can fail a batch of rows."""
    named = [("id", conversation.id), ("text", conversation.text), ("source", conversation.source)]
    for index, message in enumerate(conversation.messages or ()):
        named += [(f"messages[{index}].role", message.role), (f"messages[{index}].text", message.text)]
    for field, text in named:
        if text is not None and "\0" in text:
            raise Rejected("nul_character", "a NUL character cannot be stored", field=field)


def _check_time(at: datetime) -> None:
    """Rejects years outside the range in which Python and Postgres agree."""
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise Rejected("invalid_value", f"the year is not {FIRST_YEAR} to {LAST_YEAR}", field="occurred_at")


def _check_metadata(metadata: dict[str, Any]) -> None:
    if _depth_exceeds(metadata, MAX_DEPTH):
        raise Rejected("too_deep", f"values are nested more than {MAX_DEPTH} deep", field="metadata", status=400)
    encoded = _encoder.encode(metadata)
    if len(encoded) > MAX_METADATA_BYTES:
        raise Rejected("too_long", f"metadata is larger than {MAX_METADATA_BYTES} bytes", field="metadata")
    if b"\\u0000" in encoded and _has_nul(metadata):
        raise Rejected("nul_character", "a NUL character cannot be stored", field="metadata")


def _depth_exceeds(value: Any, limit: int) -> bool:
    """Returns whether the value is nested deeper; goes level by level, so that no input exhausts the stack."""
    level = [value]
    for _ in range(limit):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return True


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _has_nul(value: Any) -> bool:
    """Returns whether a string or a name in the value holds NUL. Call it only after the depth was checked."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(child) for key, child in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))
