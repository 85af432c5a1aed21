"""Bytes become a checked conversation, or an error with code and field that never quotes them."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import conversation as module
from schemas.conversation import MAX_METADATA_BYTES, MAX_TEXT_CHARS, MAX_VALUE_BYTES, Conversation, decode_conversation
from schemas.errors import Rejected

SECRET = "my-secret-words"


def rejected(value: bytes, *, require_id: bool = True) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decode_conversation(value, require_id=require_id)
    return caught.value


def body(**fields: object) -> bytes:
    return json.dumps({"id": "c-1", "text": SECRET, **fields}).encode()


def test_the_smallest_record_is_valid() -> None:
    """A raw producer's record is valid with id and text alone."""
    conversation = decode_conversation(b'{"id": "c-1", "text": "refund please"}', require_id=True)
    assert (conversation.id, conversation.text) == ("c-1", "refund please")


def test_encoding_gives_back_what_was_decoded() -> None:
    """The gateway publishes what it has checked, with nothing added and nothing lost."""
    value = b'{"id":"c","messages":[{"role":"user","text":"hi","at":"2026-01-31T12:00:00Z"}],"metadata":{"a":[1,null]}}'
    conversation = decode_conversation(value, require_id=True)
    assert decode_conversation(conversation.encode(), require_id=True) == conversation


@pytest.mark.parametrize(
    ("value", "status", "code", "field"),
    [
        (b"", 400, "not_json", ""),
        (b"hello", 400, "not_json", ""),
        (b'{"id":"c","text":"\xff\xfe"}', 400, "not_utf8", ""),
        (b'{"id":"c","text":"a \\ud800 b"}', 400, "lone_surrogate", ""),
        (b'{"id":"c","text":"a \\ud800"}', 400, "lone_surrogate", ""),
        (b'{"id":"c","text":"x","metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, 400, "too_deep", ""),
        (body(metadata={"a": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}), 400, "too_deep", "metadata"),
        (b'{"id":"c","text":"' + b"x" * MAX_VALUE_BYTES + b'"}', 413, "too_large", ""),
        (b"[]", 422, "invalid_value", ""),
        (b'{"id":7,"text":"x"}', 422, "invalid_value", "id"),
        (b'{"id":"c","text":["x"]}', 422, "invalid_value", "text"),
        (
            b'{"id":"c","messages":[{"role":"u","text":"x"},{"role":"u","text":1}]}',
            422,
            "invalid_value",
            "messages[1].text",
        ),
        (b'{"id":"c","messages":[{"text":"x"}]}', 422, "missing_field", "messages[0].role"),
        (body(colour="red"), 422, "unknown_field", "colour"),
        (b'{"text":"x"}', 422, "missing_field", "id"),
        (b'{"id":"c"}', 422, "missing_field", "text"),
        (b'{"id":"c","text":" \\n\\t "}', 422, "empty_text", "text"),
        (b'{"id":"c","messages":[]}', 422, "empty_text", "messages"),
        (b'{"id":"c","text":"a\\u0000b"}', 422, "nul_character", "text"),
        (body(metadata={"a": ["b\0"]}), 422, "nul_character", "metadata"),
        (body(messages=[{"role": "user", "text": "x"}]), 422, "text_and_messages", "messages"),
        (body(text="x" * (MAX_TEXT_CHARS + 1)), 422, "too_long", "text"),
        (body(metadata={"a": "x" * MAX_METADATA_BYTES}), 422, "too_long", "metadata"),
        (body(id="  "), 422, "invalid_value", "id"),
        (body(id="a\nb"), 422, "invalid_value", "id"),
        (body(id=""), 422, "invalid_value", "id"),
        (body(occurred_at="0001-01-01T00:00:00+14:00"), 422, "invalid_value", "occurred_at"),
        (body(occurred_at="yesterday"), 422, "invalid_value", "occurred_at"),
        (body(occurred_at="2026-01-31T12:00:00"), 422, "invalid_value", "occurred_at"),
    ],
)
def test_bad_input_is_named(value: bytes, status: int, code: str, field: str) -> None:
    """Each kind of bad input has its own status and code, and names the field to change."""
    error = rejected(value)
    assert (error.status, error.code, error.field) == (status, code, field)


def test_a_rejection_never_quotes_the_conversation() -> None:
    """The detail goes into dead letters and answers, where conversation text must not be."""
    for value in (body(colour=SECRET), body(occurred_at=SECRET), body(id=[SECRET]), body()[:-3], body(source="")):
        error = rejected(value)
        assert SECRET not in f"{error.detail} {error.field} {error}"


def test_the_gateway_may_make_the_id() -> None:
    """An id is required only in the topic."""
    assert decode_conversation(b'{"text": "x"}', require_id=False).id is None


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_rejected(value: bytes) -> None:
    """No input raises anything but Rejected."""
    statuses = []
    try:
        decode_conversation(value, require_id=True)
    except Rejected as error:
        statuses.append(error.status)
    assert set(statuses) <= {400, 413, 422}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
FIELDS = st.sampled_from(["id", "text", "messages", "source", "occurred_at", "metadata", "other"])


@given(st.dictionaries(FIELDS, JSON, max_size=5))
def test_what_is_decoded_can_be_stored(fields: dict[str, object]) -> None:
    """No NUL is accepted anywhere: a single one would fail a whole batch of rows."""
    try:
        conversation = decode_conversation(json.dumps(fields).encode(), require_id=True)
    except Rejected:
        return
    assert b"\\u0000" not in conversation.encode().replace(b"\\\\", b"")


def decode_with_every_check(value: bytes) -> Conversation:
    """Decodes without the shortcuts that leave a check out."""
    conversation = module._parse(value)
    module._check_id(conversation, True)
    module._check_content(conversation)
    module._check_length(conversation.messages or ())
    module._check_nul(conversation)
    module._check_metadata(conversation.metadata or {})
    if conversation.occurred_at is not None:
        module._check_time(conversation.occurred_at)
    return conversation


def outcome(decode: Callable[[], Conversation]) -> str:
    try:
        return repr(decode())
    except Rejected as error:
        return f"{error.status} {error.field} {error}"


TEXTS = st.text(st.sampled_from('ab \n\x1c\xa0\u2003\0\ud800\U0001f621"\\'), max_size=6) | st.sampled_from(
    [
        "",
        " \u2003",
        "\\u0000",
        "x" * (MAX_TEXT_CHARS // 2),
        "x" * (MAX_TEXT_CHARS // 2 + 1),
        "退" * (MAX_TEXT_CHARS // 2),
    ]
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.just("user") | TEXTS, "text": TEXTS}), max_size=3)
#: Fields that differ from the smallest record.
CHANGES = st.one_of(
    st.tuples(st.just("messages"), MESSAGES),
    st.tuples(st.sampled_from(["id", "text", "source"]), TEXTS),
    st.tuples(st.just("occurred_at"), st.sampled_from(["2026-01-31T12:00:00Z", "0001-01-01T00:00:00Z", "now"])),
    st.tuples(st.just("metadata"), st.dictionaries(TEXTS, TEXTS | JSON, max_size=2)),
)
RECORDS = st.builds(
    lambda content, changes: {"id": "c-1"} | content | dict(changes),
    st.just({"text": SECRET}) | MESSAGES.map(lambda messages: {"messages": messages}),
    st.lists(CHANGES, max_size=2),
)


@settings(max_examples=300)
@given(RECORDS, st.booleans())
def test_skipped_checks_change_no_result(record: dict[str, object], ensure_ascii: bool) -> None:
    """The same conversation or the same error as with every check, for records near the usual one."""
    value = json.dumps(record, ensure_ascii=ensure_ascii).encode(errors="surrogatepass")
    expected = outcome(lambda: decode_with_every_check(value))
    assert len(value) > MAX_VALUE_BYTES or outcome(lambda: decode_conversation(value, require_id=True)) == expected


@pytest.mark.parametrize("part", ["id", "text", "source", "messages", "metadata"])
def test_nul_is_refused_in_every_field(part: str) -> None:
    """The check is skipped for values without a backslash; JSON writes NUL with one."""
    values = {"messages": [{"role": "u\0", "text": "x"}], "metadata": {"a\0": 1}}
    fields = {"id": "c", "text": "x"} | {part: values.get(part, "x\0")}
    if part == "messages":
        del fields["text"]
    assert rejected(json.dumps(fields).encode()).code in ("nul_character", "invalid_value")


def test_messages_are_too_long_together_from_the_first_character_beyond() -> None:
    """Measured in characters, so an ASCII value at the limit is the smallest that can exceed it."""
    texts = ["x" * (MAX_TEXT_CHARS - 1), "x"]
    messages = [{"role": "u", "text": text} for text in texts]
    assert decode_conversation(json.dumps({"id": "c", "messages": messages}).encode(), require_id=True)
    assert rejected(json.dumps({"id": "c", "messages": [*messages, messages[1]]}).encode()).code == "too_long"
