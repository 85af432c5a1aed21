"""Bytes become a checked conversation, or an error with code and field that never quotes them."""

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import conversation as module
from schemas.conversation import (
    CUT_MARK,
    MAX_MESSAGES,
    MAX_METADATA_BYTES,
    MAX_RECORD_BYTES,
    MAX_TEXT_CHARS,
    MAX_VALUE_BYTES,
    Conversation,
    Repair,
    decode_conversation,
    readable_id,
)
from schemas.errors import Rejected

SECRET = "my-secret-words"


def rejected(value: bytes, *, from_topic: bool = True) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decode_conversation(value, from_topic=from_topic)
    return caught.value


def decoded(value: bytes) -> Conversation:
    return decode_conversation(value, from_topic=True)[0]


def body(**fields: object) -> bytes:
    return json.dumps({"id": "c-1", "text": SECRET, **fields}).encode()


def test_the_smallest_record_is_valid() -> None:
    """A raw producer's record is valid with id and text alone."""
    conversation, repairs = decode_conversation(b'{"id": "c-1", "text": "refund please"}', from_topic=True)
    assert (conversation.id, conversation.text, repairs) == ("c-1", "refund please", ())


def test_encoding_gives_back_what_was_decoded() -> None:
    """The gateway publishes what it has checked, with nothing added and nothing lost."""
    value = b'{"id":"c","messages":[{"role":"user","text":"hi","at":"2026-01-31T12:00:00Z"}],"metadata":{"a":[1,null]}}'
    conversation = decoded(value)
    assert decoded(conversation.encode()) == conversation


@pytest.mark.parametrize(
    ("value", "status", "code", "field"),
    [
        (b"", 400, "not_json", ""),
        (b"hello", 400, "not_json", ""),
        (b'{"id":"c","text":"\xff\xfe"}', 400, "not_utf8", ""),
        (b'{"id":"c","text":"a"}\x00\x00x', 400, "not_json", ""),
        (b'{"id":"c","text":"x","metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, 400, "too_deep", ""),
        (body(metadata={"a": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}), 400, "too_deep", "metadata"),
        (b'{"id":"c","text":"' + b"x" * MAX_RECORD_BYTES + b'"}', 413, "too_large", ""),
        (b"[]", 422, "invalid_value", ""),
        (b'{"id":true,"text":"x"}', 422, "invalid_value", "id"),
        (b'{"id":7.0,"text":"x"}', 422, "invalid_value", "id"),
        (b'{"id":9223372036854775808,"text":"x"}', 422, "invalid_value", "id"),
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
        (body(messages=[{"role": "user", "text": "x"}]), 422, "text_and_messages", "messages"),
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


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b"", "the conversation is not JSON: it is empty"),
        (body()[:-3], "the conversation is not JSON: it ends too early"),
        (b"{'id': 1}", "the conversation is not JSON: a character is wrong at byte 1"),
        (b'{"id":"c","text":"\xff"}', "the conversation is not UTF-8 at byte 18"),
        (b"[]", "the conversation must be an object, not an array"),
        (body(text=5), "`text` must be a string, not a number"),
        (body(text=None, messages=SECRET), "`messages` must be an array, not a string"),
        (body(id=7.5), "`id` must be an integer or a string, not a decimal number"),
        (body(id=2**63), "`id` holds a number that is out of range"),
        (body(id="c" * 257), "`id` must have at most 256 characters"),
        (body(source=""), "`source` must not be empty"),
        (body(metadata=True), "`metadata` must be an object, not a boolean"),
        (body(messages=[{"role": {}, "text": "x"}]), "`messages[0].role` must be a string, not an object"),
        (body(messages=[{"text": "x"}]), "`messages[0].role` is missing"),
        (
            body(messages=[{"role": "u", "text": "x", "colour": 1}]),
            "there is no field `messages[0].colour`, only `role`, `text`, `at`",
        ),
        (
            body(colour=1),
            "there is no field `colour`, only `id`, `text`, `messages`, `source`, `occurred_at`, `metadata`",
        ),
        (body(**{SECRET: 1}), "there is no such field"),
        (
            body(occurred_at="2026-01-31T12:00:00"),
            "`occurred_at` must be an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z",
        ),
        (
            body(occurred_at=1_770_000_000),
            "`occurred_at` must be an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z, not a number",
        ),
    ],
)
def test_a_rejection_says_what_to_change(value: bytes, detail: str) -> None:
    """In one plain sentence, which clients and operators read."""
    assert rejected(value).detail == detail


def test_the_gateway_may_make_the_id() -> None:
    """An id is required only in the topic."""
    assert decode_conversation(b'{"text": "x"}', from_topic=False)[0].id is None


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_rejected(value: bytes) -> None:
    """No input raises anything but Rejected."""
    statuses = []
    try:
        decode_conversation(value, from_topic=True)
    except Rejected as error:
        statuses.append(error.status)
    assert set(statuses) <= {400, 413, 422}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
FIELDS = st.sampled_from(["id", "text", "messages", "source", "occurred_at", "metadata", "other"])


@given(st.dictionaries(FIELDS, JSON, max_size=5), st.integers(0, 200))
def test_no_rejection_has_the_parsers_words(fields: dict[str, object], size: int) -> None:
    """Whatever is wrong with a record, or missing at its end."""
    value = json.dumps(fields).encode()
    said = " ".join(outcome(lambda sent=sent: decoded(sent) and "") for sent in (value, value[:size]))
    assert not re.search("Expected|got|Object|Invalid|malformed|truncated|`(str|int|null|array)`", said)


@given(st.dictionaries(FIELDS, JSON, max_size=5))
def test_what_is_decoded_can_be_stored(fields: dict[str, object]) -> None:
    """No NUL is left anywhere: a single one would fail a whole batch of rows."""
    try:
        conversation = decoded(json.dumps(fields).encode())
    except Rejected:
        return
    assert b"\\u0000" not in conversation.encode().replace(b"\\\\", b"")


#: Walks over every escape, also those that stay, so that no backslash is read as the beginning of the next one.
EVERY_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u0000|u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
    rb"|(\x00|\xed[\xa0-\xbf][\x80-\xbf])",
    re.DOTALL,
)


def repaired_step_by_step(value: bytes) -> bytes:
    value = value.removeprefix(b"\xef\xbb\xbf").rstrip(b"\0")
    return EVERY_ESCAPE.sub(lambda found: b"\xef\xbf\xbd" if found[1] or found[2] else found[0], value)


def decode_with_every_check(value: bytes) -> tuple[Conversation, tuple[Repair, ...]]:
    """Decodes without the shortcuts that leave a check or a repair out."""
    if len(value) > MAX_RECORD_BYTES:
        raise Rejected("too_large", f"the conversation is larger than {MAX_RECORD_BYTES} bytes", status=413)
    conversation, repairs = module._decode_leniently(value, repaired_step_by_step(value))
    module._check_id(conversation, is_required=True, is_repaired=bool(repairs))
    module._check_content(conversation)
    if module._is_too_long(conversation):
        conversation, repairs = module._cut(conversation), (*repairs, Repair.TEXT_CUT)
    module._check_metadata(conversation.metadata or {})
    if conversation.occurred_at is not None:
        module._check_time(conversation.occurred_at)
    return conversation, repairs


def outcome(decode: Callable[[], object]) -> str:
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
    """The same conversation, repairs or error as with every check, for records near the usual one."""
    value = json.dumps(record, ensure_ascii=ensure_ascii).encode(errors="surrogatepass")
    expected = outcome(lambda: decode_with_every_check(value))
    assert outcome(lambda: decode_conversation(value, from_topic=True)) == expected


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (rb"angry \ud83d", "angry \ufffd"),
        (rb"\uDE21 angry", "\ufffd angry"),
        (rb"\ud83d\ud83d\ude21", "\ufffd\U0001f621"),
        (rb"\ud83d\ude21", "\U0001f621"),
        (rb"a\u0000b", "a\ufffdb"),
        (b"a\x00b", "a\ufffdb"),
        (b"a\xed\xa0\xbdb", "a\ufffdb"),
        (rb"C:\\u0000 \\\u0000", "C:\\u0000 \\\ufffd"),
        (rb"\\ud83d \"\ud83d\"", '\\ud83d "\ufffd"'),
    ],
)
def test_characters_that_cannot_be_stored_are_replaced(sent: bytes, stored: str) -> None:
    """Half an emoji and NUL, as escapes and as bytes; whole pairs and escaped backslashes stay."""
    conversation, repairs = decode_conversation(b'{"id":"c","text":"' + sent + b'"}', from_topic=False)
    assert conversation.text == stored
    assert repairs == ((Repair.CHARACTERS_REPLACED,) if "\ufffd" in stored else ())


def test_characters_are_replaced_in_every_field() -> None:
    """Also in names within the metadata."""
    value = json.dumps(
        {
            "id": "c",
            "source": "\ud83d",
            "messages": [{"role": "u\0", "text": "x\ud83d"}],
            "metadata": {"a\0": ["\ude21"]},
        }
    )
    conversation = decoded(value.encode())
    assert conversation.messages is not None
    assert conversation.source == "\ufffd"
    assert conversation.metadata == {"a\ufffd": ["\ufffd"]}
    assert (conversation.messages[0].role, conversation.messages[0].text) == ("u\ufffd", "x\ufffd")


@given(st.lists(st.sampled_from(["\\", "u", "0000", "d83d", "DE21", "dfff", "n", "x", '"']), max_size=30))
def test_repairing_quickly_changes_no_repair(pieces: list[str]) -> None:
    """Only what is there is looked for; the result is that of going through every escape."""
    value = "".join(pieces).encode()
    assert module._repaired(value) == repaired_step_by_step(value)


@pytest.mark.parametrize("piece", [rb"\n", rb"\\", b"\\", rb"\u00e9", rb"\ud83d"])
def test_no_record_takes_long(piece: bytes) -> None:
    """One that is repaired or refused is gone through once: its cost grows with its size, not with its square."""
    value = b'{"id":7,"text":"' + piece * 100_000
    assert rejected(value).code == "not_json"


def test_an_id_is_not_repaired() -> None:
    """Two of them would become one conversation."""
    assert rejected(json.dumps({"id": "a\0", "text": "x"}).encode()).field == "id"
    assert decoded(json.dumps({"id": "a\ufffd", "text": "x"}).encode()).id == "a\ufffd"


@pytest.mark.parametrize(
    ("value", "id_"),
    [
        (body(text=5), "c-1"),
        (body(id=7, text=[{"id": "other"}]), "7"),
        (body(colour="\ud83d \0"), "c-1"),
        (b"\xef\xbb\xbf" + body(metadata={"a": "x" * MAX_METADATA_BYTES}) + b"\0", "c-1"),
        (body(text="x" * MAX_RECORD_BYTES), "c-1"),
        (b'{"text":5}', None),
        (body(id=None), None),
        (body(id=7.0), None),
        (body(id=2**63), None),
        (body(id=["c-1"]), None),
        (body(id="c" * 257), None),
        (body(id=" c"), None),
        (body(id="a\0"), None),
        (b'{"id":"a\xff","text":"x"}', None),
        (b'["id"]', None),
        (body()[:-3], None),
        (b'{"id":"c","metadata":' + b"[" * 100_000, None),
        (b"", None),
    ],
)
def test_an_id_is_read_from_what_is_rejected(value: bytes, id_: str | None) -> None:
    """If it would be valid in a conversation: a producer looks for its record by that."""
    assert rejected(value)
    assert readable_id(value) == id_


@given(st.binary(max_size=300))
def test_reading_an_id_never_fails(value: bytes) -> None:
    """It is read after something else is wrong, from any bytes."""
    assert readable_id(value) is None or b"id" in value


@pytest.mark.parametrize("wrapped", [b"\xef\xbb\xbf%b", b"%b\x00\x00", b"\xef\xbb\xbf%b\x00"])
def test_a_bom_before_and_nul_behind_the_value_are_removed(wrapped: bytes) -> None:
    """As Windows tools and C programs write them."""
    conversation, repairs = decode_conversation(wrapped % body(), from_topic=True)
    assert (conversation, repairs) == (decoded(body()), (Repair.CHARACTERS_REPLACED,))


@pytest.mark.parametrize("from_topic", [True, False])
def test_an_integer_id_is_its_digits(from_topic: bool) -> None:
    """Many databases number their conversations; the same number as a string is the same conversation."""
    for id_ in (7, 0, -(2**63), 2**63 - 1):
        conversation, repairs = decode_conversation(body(id=id_), from_topic=from_topic)
        assert (conversation.id, repairs) == (str(id_), ())


def test_a_text_beyond_the_limit_is_cut_in_the_middle() -> None:
    """Its beginning and end are kept, and a mark between them; at the limit it is whole."""
    assert decode_conversation(body(text="x" * MAX_TEXT_CHARS), from_topic=True)[1] == ()
    text = "begin" + "退" * (MAX_TEXT_CHARS * 3 // 2) + "end"
    conversation, repairs = decode_conversation(json.dumps({"id": "c", "text": text}).encode(), from_topic=True)
    assert conversation.text is not None
    assert (len(conversation.text) <= MAX_TEXT_CHARS, repairs) == (True, (Repair.TEXT_CUT,))
    head, _, tail = conversation.text.partition(CUT_MARK)
    assert (text.startswith(head), text.endswith(tail), len(head), len(head) - len(tail)) == (True, True, 49_993, 0)


MANY = st.lists(st.integers(0, MAX_TEXT_CHARS).map(lambda size: "x" * size), min_size=1, max_size=8)


@settings(max_examples=50)
@given(MANY, st.integers(0, 1_100))
def test_messages_beyond_the_limit_are_cut_in_the_middle(texts: list[str], empty: int) -> None:
    """Together: the first and the last ones stay whole, as much of the text as possible is kept, and no more."""
    texts = ["first", *texts, *[""] * empty, "last"]
    value = json.dumps({"id": "c", "messages": [{"role": "u", "text": text} for text in texts]}).encode()
    conversation, repairs = decode_conversation(value, from_topic=True)
    assert conversation.messages is not None
    kept = [message.text for message in conversation.messages]
    size = sum(map(len, kept))
    is_within = len(texts) <= MAX_MESSAGES and sum(map(len, texts)) <= MAX_TEXT_CHARS
    assert (repairs == (), kept == texts) == (is_within, is_within)
    assert (kept[0], kept[-1]) == ("first", "last")
    assert len(kept) <= MAX_MESSAGES
    assert size <= MAX_TEXT_CHARS
    assert size >= min(sum(map(len, texts)), MAX_TEXT_CHARS - 4 * len(CUT_MARK))


@pytest.mark.parametrize(
    ("fields", "field", "limit"),
    [
        ({"text": "x" * (MAX_TEXT_CHARS + 1)}, "text", MAX_TEXT_CHARS),
        ({"messages": [{"role": "u", "text": "x" * (MAX_TEXT_CHARS // 2 + 1)}] * 2}, "messages", MAX_TEXT_CHARS),
        ({"messages": [{"role": "u", "text": "x"}] * (MAX_MESSAGES + 1)}, "messages", MAX_MESSAGES),
    ],
)
def test_the_gateway_names_the_limit(fields: dict[str, object], field: str, limit: int) -> None:
    """A client can shorten its text; a record cannot be returned to its producer."""
    error = rejected(json.dumps({"id": "c", **fields}).encode(), from_topic=False)
    assert (error.status, error.code, error.field) == (422, "too_long", field)
    assert str(limit) in error.detail


def test_the_gateway_reads_smaller_values_than_the_topic_may_hold() -> None:
    """A record larger than what the gateway accepts is cut rather than lost."""
    value = body(text="x" * MAX_VALUE_BYTES)
    assert decode_conversation(value, from_topic=True)[1] == (Repair.TEXT_CUT,)
    assert rejected(value, from_topic=False).status == 413
