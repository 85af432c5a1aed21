"""Conversation, and decode_conversation, which checks sizes and types and repairs characters."""

import codecs
import re
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from schemas.errors import Rejected
from schemas.instant import Instant

#: What the gateway accepts. Kafka's default limit for a record is 1 MiB, which leaves room for headers and framing.
MAX_VALUE_BYTES = 512 * 1024
#: What workers read from the topic. A copy of a larger record, with its headers, would not fit into Kafka's default
#: limit of 1 MiB.
MAX_RECORD_BYTES = 1_000_000
MAX_TEXT_CHARS = 100_000
MAX_MESSAGES = 1_000
MAX_ID_CHARS = 256
MAX_SOURCE_CHARS = 128
MAX_METADATA_BYTES = 16 * 1024
MAX_DEPTH = 16
FIRST_YEAR, LAST_YEAR = 1970, 2999
#: Takes the place of what was cut out of a text.
CUT_MARK = " [...] "

#: Leaves room for two marks: the cut may end in another message than where it begins.
_HALF_TEXT_CHARS = MAX_TEXT_CHARS // 2 - len(CUT_MARK)
_HALF_MESSAGES = MAX_MESSAGES // 2
#: A shorter value holds neither too many messages, of which the smallest has 22 bytes, nor too many characters.
_MIN_TOO_LONG_BYTES = 20 * MAX_MESSAGES
#: A surrogate in UTF-8, which has none.
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
#: Backslashes (group 1) and what is an escape of NUL or of a surrogate if their number is odd; group 2 is the escape of
#: a low surrogate right after a high one.
_ESCAPE = re.compile(
    rb"(?<!\\)(\\++)u(?:0000|[dD][89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[dD][c-fC-F][0-9a-fA-F]{2})"
)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()

_TIME = "an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z"
#: msgspec's names of types, in the words of clients and producers.
_EXPECTED_TYPES = {
    "str": "a string",
    "int": "an integer",
    "array": "an array",
    "object": "an object",
    "datetime": _TIME,
}
_FOUND_TYPES = {
    **_EXPECTED_TYPES,
    "int": "a number",
    "float": "a decimal number",
    "bool": "a boolean",
}
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_WRONG_LENGTH = re.compile(r"Expected `str` of length ([<>])= (\d+)")


class Repair(StrEnum):
    """What was changed in a record so that it can be processed; labels of `conversations_repaired_total`."""

    CHARACTERS_REPLACED = "characters_replaced"  # NUL and half surrogate pairs became U+FFFD, or a BOM was removed
    TEXT_CUT = "text_cut"  # to MAX_TEXT_CHARS, beginning and end kept
    OCCURRED_AT_CLAMPED = "occurred_at_clamped"  # from a time in the future to the time of receipt


Repairs = tuple[Repair, ...]

#: Decoded as its decimal digits.
IntegerId = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_StringId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One turn of a conversation; `role` is free ("user", "agent", ...), `at` is RFC 3339 with an offset."""

    role: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)]
    at: Instant | None = None


class Conversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a producer sends: `text` or `messages`, never both. `id` is None only before the gateway assigns one.

    An integer `id` is taken as its decimal digits. Workers cut longer texts from the topic to the limit; the gateway
    refuses them. Half surrogate pairs and NUL become U+FFFD.
    """

    id: _StringId | None = None
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)] | None = None
    messages: Annotated[tuple[Message, ...], msgspec.Meta(max_length=MAX_MESSAGES)] | None = None
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SOURCE_CHARS)] | None = None
    occurred_at: Instant | None = None
    metadata: dict[str, Any] | None = None

    def encode(self) -> bytes:
        """Returns the record's value: JSON in UTF-8, without the absent fields."""
        return _encoder.encode(self)


class _LenientMessage(msgspec.Struct, forbid_unknown_fields=True):
    role: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    text: str
    at: Instant | None = None


class _LenientConversation(msgspec.Struct, forbid_unknown_fields=True):
    """A Conversation that may have an integer id and texts of any length."""

    id: _StringId | IntegerId | None = None
    text: str | None = None
    messages: tuple[_LenientMessage, ...] | None = None
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SOURCE_CHARS)] | None = None
    occurred_at: Instant | None = None
    metadata: dict[str, Any] | None = None

    def as_conversation(self) -> Conversation:
        messages = None if self.messages is None else tuple(Message(m.role, m.text, m.at) for m in self.messages)
        id_ = None if self.id is None else str(self.id)
        return Conversation(id_, self.text, messages, self.source, self.occurred_at, self.metadata)


class _Identified(msgspec.Struct):
    """An object with an id, whatever its other fields are."""

    id: _StringId | IntegerId | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Conversation)
_lenient_decoder = msgspec.json.Decoder(_LenientConversation)
_id_decoder = msgspec.json.Decoder(_Identified)


def decode_conversation(value: bytes, *, from_topic: bool) -> tuple[Conversation, Repairs]:
    """Returns the conversation in JSON bytes, checked, and what had to be repaired.

    A record from the topic needs an id, and its text is cut to the limit; a longer text from the gateway's client is
    rejected. Raises Rejected with status 413 (too large), 400 (not JSON, not UTF-8, nested too deeply) or 422 (wrong
    content); `code` is stable and `field` names the part to change. The detail never quotes the input.

    Runs for every record: checks that the bytes or the types already answer are skipped, and nothing is repaired before
    the plain decoding has failed.
    """
    max_bytes = MAX_RECORD_BYTES if from_topic else MAX_VALUE_BYTES
    if len(value) > max_bytes:
        raise Rejected("too_large", f"the conversation is larger than {max_bytes} bytes", status=413)
    conversation, repairs = _decode(value)
    _check_id(conversation, is_required=from_topic, is_repaired=bool(repairs))
    _check_content(conversation)
    if len(value) > _MIN_TOO_LONG_BYTES and _is_too_long(conversation):
        if not from_topic:
            raise _too_long(conversation)
        conversation, repairs = _cut(conversation), (*repairs, Repair.TEXT_CUT)
    if conversation.metadata is not None:
        _check_metadata(conversation.metadata)
    if conversation.occurred_at is not None:
        _check_time(conversation.occurred_at)
    return conversation, repairs


def readable_id(value: bytes) -> str | None:
    """Returns the id in a value that decode_conversation rejects, None where that is not an object with a valid id."""
    repaired = _repaired(value) if len(value) <= MAX_RECORD_BYTES else value  # one larger may have any size
    try:
        id_ = _id_decoder.decode(repaired).id
        identified = Conversation(None if id_ is None else str(id_))
        _check_id(identified, is_required=False, is_repaired=repaired != value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Rejected):
        return None
    return identified.id


def _decode(value: bytes) -> tuple[Conversation, Repairs]:
    if not (b"\\" in value and b"\\u0000" in value):  # JSON has no other notation for NUL
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _decoder.decode(value), ()
    return _decode_leniently(value, _repaired(value))


def _decode_leniently(value: bytes, repaired: bytes) -> tuple[Conversation, Repairs]:
    repairs = () if repaired == value else (Repair.CHARACTERS_REPLACED,)
    try:
        return _lenient_decoder.decode(repaired).as_conversation(), repairs
    except msgspec.ValidationError as error:
        raise _rejected_by_schema(error) from error
    except RecursionError as error:
        detail = f"the conversation is nested more than {MAX_DEPTH} deep"
        raise Rejected("too_deep", detail, status=400) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _rejected_by_syntax(repaired, error) from error


def _repaired(value: bytes) -> bytes:
    """Replaces what cannot be stored. C programs send NUL at the end, Windows tools a BOM in front."""
    value = value.removeprefix(codecs.BOM_UTF8).rstrip(b"\0").replace(b"\0", _REPLACEMENT)
    if b"\xed" in value:
        value = _SURROGATE.sub(_REPLACEMENT, value)
    if any(start in value for start in (b"\\u0000", b"\\ud", b"\\uD")):
        value = _ESCAPE.sub(_storable, value)
    return value


def _storable(found: re.Match[bytes]) -> bytes:
    backslashes, low = found[1], found[2]
    if len(backslashes) % 2 == 0:  # the first is text about an escape
        return found[0] if low is None else found[0][: -len(low)] + _REPLACEMENT
    return found[0] if low is not None else backslashes[:-1] + _REPLACEMENT


def _rejected_by_syntax(value: bytes, error: Exception) -> Rejected:
    try:
        value.decode()
    except UnicodeDecodeError as unicode_error:
        return Rejected("not_utf8", f"the conversation is not UTF-8 at byte {unicode_error.start}", status=400)
    place = re.search(r"\(byte (\d+)\)$", str(error))
    if place is not None:
        why = f"a character is wrong at byte {place[1]}"
    else:
        why = "it ends too early" if value.strip() else "it is empty"
    return Rejected("not_json", f"the conversation is not JSON: {why}", status=400)


def _rejected_by_schema(error: msgspec.ValidationError) -> Rejected:
    """Says in plain words what msgspec's message says, which may quote the name of an unknown field."""
    message, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if message.startswith("Object contains unknown field"):
        name = message.partition("`")[2].rstrip("`")
        # The name is the client's own text, so it is shown only if it is a short identifier.
        if not (name.isidentifier() and len(name) <= 64):
            return Rejected("unknown_field", "there is no such field", field=f"{field}.?".lstrip("."))
        known = ", ".join(f"`{each}`" for each in (Message if field else Conversation).__struct_fields__)
        field = f"{field}.{name}".lstrip(".")
        return Rejected("unknown_field", f"there is no field `{field}`, only {known}", field=field)
    if message.startswith("Object missing required field"):
        missing = message.partition("`")[2].rstrip("`")
        field = f"{field}.{missing}".lstrip(".")
        return Rejected("missing_field", f"`{field}` is missing", field=field)
    field = "metadata" if field.startswith("metadata") else field
    subject = f"`{field}`" if field else "the conversation"
    code = "too_long" if "length <=" in message else "invalid_value"
    return Rejected(code, f"{subject} {_what_is_wrong(message)}", field=field)


def _what_is_wrong(message: str) -> str:
    if found := _WRONG_TYPE.fullmatch(message):
        expected = [_EXPECTED_TYPES.get(name, name) for name in found[1].split(" | ") if name != "null"]
        return f"must be {' or '.join(expected)}, not {_FOUND_TYPES.get(found[2], found[2])}"
    if found := _WRONG_LENGTH.fullmatch(message):
        return "must not be empty" if found[1] == ">" else f"must have at most {found[2]} characters"
    return f"must be {_TIME}" if "datetime" in message else "holds a number that is out of range"


def _check_id(conversation: Conversation, *, is_required: bool, is_repaired: bool) -> None:
    if conversation.id is None:
        if is_required:
            raise Rejected("missing_field", "a record needs an `id`", field="id")
        return
    if is_repaired and "\N{REPLACEMENT CHARACTER}" in conversation.id:  # two ids must not become one
        raise Rejected("invalid_value", "an `id` cannot hold NUL or half a surrogate pair", field="id")
    if not conversation.id.isprintable() or conversation.id != conversation.id.strip():
        detail = "an `id` consists of printable characters, without spaces around them"
        raise Rejected("invalid_value", detail, field="id")


def _check_content(conversation: Conversation) -> None:
    if conversation.text is not None:
        if conversation.messages is not None:
            raise Rejected("text_and_messages", "send either `text` or `messages`, not both", field="messages")
        if _is_blank(conversation.text):
            raise Rejected("empty_text", "there is nothing in `text`", field="text")
        return
    if conversation.messages is None:
        raise Rejected("missing_field", "send `text` or `messages`", field="text")
    if all(_is_blank(message.text) for message in conversation.messages):
        raise Rejected("empty_text", "there is no text in `messages`", field="messages")


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _is_too_long(conversation: Conversation) -> bool:
    messages = conversation.messages
    if messages is None:
        return len(conversation.text or "") > MAX_TEXT_CHARS
    return len(messages) > MAX_MESSAGES or sum(len(message.text) for message in messages) > MAX_TEXT_CHARS


def _too_long(conversation: Conversation) -> Rejected:
    messages = conversation.messages
    if messages is None:
        detail = f"`text` must have at most {MAX_TEXT_CHARS} characters, and has {len(conversation.text or '')}"
        return Rejected("too_long", detail, field="text")
    if len(messages) > MAX_MESSAGES:
        detail = f"there must be at most {MAX_MESSAGES} `messages`, and there are {len(messages)}"
        return Rejected("too_long", detail, field="messages")
    chars = sum(len(message.text) for message in messages)
    detail = f"all `messages` must have at most {MAX_TEXT_CHARS} characters, and have {chars}"
    return Rejected("too_long", detail, field="messages")


def _cut(conversation: Conversation) -> Conversation:
    """Keeps the beginning and the end: the first and last messages, and of their texts as much as the limit admits."""
    if conversation.messages is None:
        assert conversation.text is not None, "_check_content rejects a conversation without content"
        return msgspec.structs.replace(conversation, text=_without(conversation.text, *_middle(len(conversation.text))))
    messages = conversation.messages
    if len(messages) > MAX_MESSAGES:
        last = messages[_HALF_MESSAGES - 1]
        marked = msgspec.structs.replace(last, text=last.text + CUT_MARK)
        messages = (*messages[: _HALF_MESSAGES - 1], marked, *messages[-_HALF_MESSAGES:])
    cut: list[Message] = []
    begin, end = _middle(sum(len(message.text) for message in messages))
    for message in messages:
        size = len(message.text)
        if not (begin <= 0 and size <= end and begin < end):
            text = _without(message.text, max(begin, 0), min(end, size))
            cut.append(msgspec.structs.replace(message, text=text))
        begin, end = begin - size, end - size
    return msgspec.structs.replace(conversation, messages=tuple(cut))


def _middle(chars: int) -> tuple[int, int]:
    """Returns where the part to cut out of `chars` characters begins and ends; it is empty within the limit."""
    return (_HALF_TEXT_CHARS, chars - _HALF_TEXT_CHARS) if chars > MAX_TEXT_CHARS else (chars, chars)


def _without(text: str, begin: int, end: int) -> str:
    return text[:begin] + CUT_MARK + text[end:] if begin < end else text


def _check_time(at: datetime) -> None:
    """Rejects a time before 1970. Whether one is in the future shows only beside the time of receipt."""
    if at.year < FIRST_YEAR:
        raise Rejected("invalid_value", f"`occurred_at` is before the year {FIRST_YEAR}", field="occurred_at")


def _check_metadata(metadata: dict[str, Any]) -> None:
    if _depth_exceeds(metadata, MAX_DEPTH):
        detail = f"`metadata` is nested more than {MAX_DEPTH} deep"
        raise Rejected("too_deep", detail, field="metadata", status=400)
    encoded = _encoder.encode(metadata)
    if len(encoded) > MAX_METADATA_BYTES:
        raise Rejected("too_long", f"`metadata` must have at most {MAX_METADATA_BYTES} bytes", field="metadata")


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
