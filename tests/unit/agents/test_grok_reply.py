"""Replies are accepted, cut, repaired, or refused with a named error."""

import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.grok.reply import (
    MAX_EXTRA_BYTES,
    BadAnswer,
    UnreadableReply,
    read_carefully,
    read_quickly,
    read_reply,
)
from schemas.errors import Unprocessable
from schemas.insight import Insight, Usage

ANSWER: dict[str, Any] = {
    "sentiment": "negative",
    "sentiment_score": -0.6,
    "topics": ["delivery"],
    "intent": "request_refund",
    "urgency": "high",
    "summary": "A parcel is late.",
    "action_needed": True,
    "confidence": 0.9,
    "language": "en",
}


def reply(answer: Any = None, *, content: Any = None, message: Any = None, **choice: Any) -> bytes:
    content = json.dumps(ANSWER if answer is None else answer) if content is None else content
    message = {"role": "assistant", "content": content} if message is None else message
    return json.dumps({"model": "grok-x", "choices": [{"index": 0, "message": message, **choice}]}).encode()


def with_usage(**usage: Any) -> bytes:
    return json.dumps(json.loads(reply()) | {"usage": usage}).encode()


def insight_of(**changes: Any) -> Insight:
    return read_reply(reply(ANSWER | changes)).insight


def test_a_good_answer_becomes_an_insight() -> None:
    """Every field arrives, and the model is the one that the reply names."""
    read = read_reply(reply(finish_reason="stop"))
    assert read.insight == Insight(**ANSWER | {"topics": ("delivery",)})
    assert (read.model, read.usage) == ("grok-x", Usage())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sentiment", "furious"),
        ("sentiment", "undetermined"),
        ("sentiment", None),
        ("sentiment_score", 1.5),
        ("sentiment_score", "half"),
        ("sentiment_score", "1.5"),
        ("sentiment_score", "nan"),
        ("sentiment_score", True),
        ("topics", "delivery"),
        ("topics", [1]),
        ("intent", None),
        ("urgency", "HIGHEST"),
        ("summary", 7),
        ("action_needed", "yes"),
        ("action_needed", 1),
        ("confidence", -0.1),
        ("language", ["en"]),
    ],
)
def test_wrong_types_enums_and_ranges_are_bad_answers(field: str, value: Any) -> None:
    """The error names the field and never quotes the value, which may hold conversation text."""
    with pytest.raises(BadAnswer, match=f"at {field}") as raised:
        insight_of(**{field: value})
    assert not isinstance(raised.value, UnreadableReply)
    assert "furious" not in raised.value.detail


@pytest.mark.parametrize("field", ANSWER)
def test_every_field_is_required(field: str) -> None:
    """No default replaces a field that the model left out."""
    with pytest.raises(BadAnswer):
        read_reply(reply({name: value for name, value in ANSWER.items() if name != field}))


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("sentiment", "Negative", "negative"),
        ("urgency", " HIGH\n", "high"),
        ("sentiment_score", "-0.6", -0.6),
        ("confidence", " 0.9 ", 0.9),
        ("confidence", "1", 1.0),
        ("action_needed", "true", True),
        ("action_needed", "False", False),
    ],
)
def test_values_written_differently_are_read(field: str, value: Any, read: Any) -> None:
    """The answer was paid for, and its meaning is plain."""
    assert getattr(insight_of(**{field: value}), field) == read


@pytest.mark.parametrize(
    "content",
    [
        f"```json\n{json.dumps(ANSWER)}\n```",
        f"\n```\n{json.dumps(ANSWER, indent=2)}```\n",
        "\ufeff" + json.dumps(ANSWER),
        [{"type": "text", "text": json.dumps(ANSWER)}],
        [{"type": "text", "text": json.dumps(ANSWER)[:20]}, {"type": "text", "text": json.dumps(ANSWER)[20:]}],
        [{"type": "thinking"}, {"type": "text", "text": f"```json\n{json.dumps(ANSWER)}\n```"}],
    ],
    ids=["fence", "fence without language", "byte order mark", "part", "parts", "fence in a part"],
)
def test_answers_in_another_wrapping_are_read(content: Any) -> None:
    """Compatible servers send them so."""
    assert read_reply(reply(content=content)).insight == insight_of()


def test_a_body_with_a_byte_order_mark_is_read() -> None:
    """Some proxies add it."""
    assert read_reply(b"\xef\xbb\xbf" + reply()).insight == insight_of()


def test_texts_are_cut_to_their_limits() -> None:
    """A talkative model costs no second call."""
    topics = [f"{'t' * 99}{n}" for n in range(3)] + ["a", " a ", "", "b", "c", "d", "e"]
    insight = insight_of(summary="s" * 999, topics=topics, intent="i" * 999, language="l" * 99)
    assert (len(insight.summary), len(insight.intent), len(insight.language)) == (300, 128, 35)
    assert insight.topics == ("t" * 64, "a", "b", "c", "d")


def test_characters_that_postgres_refuses_are_replaced() -> None:
    """NUL and lone surrogates become U+FFFD, in values, names and at both levels of JSON."""
    insight = insight_of(summary="a\0b", topics=["\ud800x"], **{"k\0": ["\udfff", {"n": "\0"}]})
    assert (insight.summary, insight.topics) == ("a\ufffdb", ("\ufffdx",))
    assert insight.extra == {"k\ufffd": ["\ufffd", {"n": "\ufffd"}]}
    raw = reply(content=orjson.dumps(ANSWER | {"summary": "x"}).decode().replace('"x"', '"\\ud800"'))
    assert read_reply(raw).insight.summary == "\ufffd"


def test_unknown_fields_are_kept_up_to_a_bound() -> None:
    """They go to `extra`; more than 8 KiB of them is a bad answer."""
    assert insight_of(product="router", nested={"a": [1.5, None]}).extra == {
        "product": "router",
        "nested": {"a": [1.5, None]},
    }
    with pytest.raises(BadAnswer, match="extra"):
        insight_of(product="x" * MAX_EXTRA_BYTES)
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    with pytest.raises(BadAnswer, match="deep"):
        insight_of(nested=deep)


@pytest.mark.parametrize("message", [{"content": None, "refusal": "No."}, {"content": "x", "refusal": "No."}])
def test_a_refusal_is_the_end_of_this_text(message: dict[str, Any]) -> None:
    """Asking again would be paid for and refused again."""
    with pytest.raises(Unprocessable) as raised:
        read_reply(reply(message=message))
    assert raised.value.reason == "refused"


def test_a_filtered_answer_is_a_refusal_and_a_cut_one_a_bad_answer() -> None:
    """finish_reason decides, not the content."""
    with pytest.raises(Unprocessable):
        read_reply(reply(finish_reason="content_filter"))
    with pytest.raises(BadAnswer, match="length"):
        read_reply(reply(finish_reason="length"))


@pytest.mark.parametrize(
    "content",
    [
        *("not JSON", "[]", "null", "{", '{"a": NaN}', "[" * 100_000, {"parts": 1}),
        *([], [7], [{"type": "text"}], "```json\n```", "```json\n[]\n```", f"```{'x' * 100_000}"),
    ],
)
def test_content_that_is_not_an_object_is_a_bad_answer(content: Any) -> None:
    """No content raises another exception."""
    with pytest.raises(BadAnswer) as raised:
        read_reply(reply(content=content))
    assert not isinstance(raised.value, UnreadableReply)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": 7}',
        b"\xff\xfe",
        b"[" * 99_999,
    ],
)
def test_a_body_without_the_documented_form_is_unreadable(body: bytes) -> None:
    """A proxy's page says more about the provider than about the text."""
    with pytest.raises(UnreadableReply):
        read_reply(body)


def test_completion_tokens_include_reasoning() -> None:
    """The total minus the prompt, since `completion_tokens` leaves reasoning out; the named cost is taken as it is."""
    body = with_usage(prompt_tokens=100, completion_tokens=20, total_tokens=170, cost_in_usd_ticks=12345)
    assert read_reply(body, cost_per_1k_usd=1).usage == Usage(100, 70, 12345)


def test_without_a_total_the_reasoning_tokens_are_added() -> None:
    """Compatible servers may leave the total out."""
    details = {"reasoning_tokens": 5}
    body = with_usage(prompt_tokens=100, completion_tokens=20, completion_tokens_details=details)
    assert read_reply(body).usage == Usage(100, 25, 0)


def test_a_reply_without_a_cost_is_priced_by_its_tokens() -> None:
    """USD per 1,000 tokens: 2,000 tokens at 0.0015 are 0.003 USD, 3 x 10^7 ticks."""
    body = with_usage(prompt_tokens=1500, completion_tokens=500, total_tokens=2000)
    assert read_reply(body, cost_per_1k_usd=0.0015).usage.cost_usd_ticks == 30_000_000


@pytest.mark.parametrize("junk", ["7", -3, None, [], {"a": 1}, True, 1e300, 10**400])
def test_odd_statistics_do_not_spoil_a_good_answer(junk: Any) -> None:
    """The answer has been paid for; counts stay within what the database holds."""
    usage = read_reply(with_usage(prompt_tokens=junk, total_tokens=junk, cost_in_usd_ticks=junk)).usage
    assert all(0 <= count < 2**63 for count in (usage.prompt_tokens, usage.completion_tokens, usage.cost_usd_ticks))


def test_a_bad_answer_carries_its_usage() -> None:
    """Its tokens were billed all the same."""
    body = json.loads(with_usage(prompt_tokens=10, total_tokens=12, cost_in_usd_ticks=5))
    body["choices"][0]["message"]["content"] = "no"
    with pytest.raises(BadAnswer) as raised:
        read_reply(json.dumps(body).encode())
    assert raised.value.usage == Usage(10, 2, 5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(list(ANSWER)), inner, max_size=6)
    ),
    max_leaves=20,
)


@given(
    changes=st.dictionaries(st.sampled_from([*ANSWER, "extra", "\0"]), JSON),
    whole=JSON,
    usage=JSON,
    as_reply=st.booleans(),
)
def test_any_json_is_an_insight_or_a_named_error(changes: Any, whole: Any, usage: Any, as_reply: bool) -> None:
    """No JSON raises another error, and every accepted answer can be stored."""
    body = json.dumps(json.loads(reply(ANSWER | changes)) | {"usage": usage} if as_reply else whole).encode()
    with contextlib.suppress(BadAnswer, Unprocessable):
        insight = read_reply(body).insight
        stored = orjson.dumps({"topics": insight.topics, "summary": insight.summary, "extra": insight.extra})
        assert b"\\u0000" not in stored


@given(st.binary(max_size=200))
def test_any_bytes_are_an_insight_or_a_named_error(body: bytes) -> None:
    """Including bytes that are not JSON, not UTF-8, or empty."""
    with contextlib.suppress(BadAnswer, Unprocessable):
        read_reply(body)


USAGE = {"prompt_tokens": 432, "completion_tokens": 79, "total_tokens": 811, "cost_in_usd_ticks": 10_843_000}


def test_the_usual_reply_is_read_quickly() -> None:
    """Fields that this project does not know and escaped characters included."""
    body = json.loads(reply(ANSWER | {"summary": "caf\u00e9 \U0001f621"}, finish_reason="stop"))
    body |= {"usage": USAGE | {"num_sources_used": 0}, "id": "x", "system_fingerprint": None}
    assert read_quickly(json.dumps(body).encode()) == read_carefully(json.dumps(body).encode(), None)


COUNTS = [0, 1, 811, 811.0, 0.5, -1, 2**63 - 1, 2**63, 2.0**63, 10**30, None, True]
TEXTS = st.text(st.sampled_from('ab \n\t\x1c\xa0\u2003\0\ud800\udfff\U0001f621"\\')) | st.sampled_from(
    ["x" * 34, "x" * 35 + " x", "y" * 63 + "  z", "z" * 299 + " zz", "\0", "\\u0000", "\\ud800"]
)
SCORES = st.sampled_from([0, 1, -1, 2, -0.0, 0.1, 1e-320, 1.0000001, 2**64, None, True, "1"])
#: What may differ from the usual reply: the part that holds the field, the field and its value.
CHANGES = st.one_of(
    st.tuples(st.just("answer"), st.sampled_from(["intent", "summary", "language"]), TEXTS),
    st.tuples(st.just("answer"), st.just("topics"), st.lists(TEXTS | st.just("ab"), max_size=8)),
    st.tuples(st.just("answer"), st.sampled_from(["sentiment_score", "confidence"]), SCORES),
    st.tuples(st.just("answer"), st.sampled_from(["sentiment", "action_needed", "extra", "\0"]), JSON),
    st.tuples(st.just("message"), st.just("refusal"), st.sampled_from([None, "", "No.", "No.", 0])),
    st.tuples(st.just("choice"), st.just("finish_reason"), st.sampled_from(["length", "content_filter", "", None])),
    st.tuples(st.just("usage"), st.sampled_from(list(USAGE)), st.sampled_from(COUNTS) | JSON),
    st.tuples(st.just("body"), st.just("model"), TEXTS | st.sampled_from(["m" * 129, None, 7])),
    st.tuples(st.just("body"), st.sampled_from(["usage", "choices", "object"]), JSON),
)


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """The usual reply with up to three fields changed, and sometimes damaged as text."""
    parts: dict[str, dict[str, Any]] = {
        "answer": dict(ANSWER),
        "message": {"role": "assistant"},
        "choice": {"finish_reason": "stop"},
        "usage": dict(USAGE),
        "body": {"model": "grok-x"},
    }
    for part, field, value in draw(st.lists(CHANGES, max_size=3)):
        parts[part][field] = value
    ensure_ascii = draw(st.booleans())
    content = draw(damaged(json.dumps(parts["answer"], ensure_ascii=ensure_ascii)))
    choice = {"message": {"content": content} | parts["message"]} | parts["choice"]
    whole = {"choices": [choice], "usage": parts["usage"]} | parts["body"]
    return draw(damaged(json.dumps(whole, ensure_ascii=ensure_ascii))).encode(errors="surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """The text; in one of five draws with a part cut out, repeated or overwritten."""
    if draw(st.sampled_from([False] * 4 + [True])):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        inserts = [text[start:end], *'{}[],:"\\ 0-.eEu', "\0", "\x1f", "null", "NaN", "1e999", "\\ud800"]
        text = text[:start] + draw(st.sampled_from(inserts)) + text[draw(st.sampled_from([start, start + 1, end])) :]
    return text


def outcome(read: Callable[[], Any]) -> str:
    """Returns the reply or the error as text, which shows the type of each number and the sign of each zero."""
    try:
        return repr(read())
    except (BadAnswer, Unprocessable) as error:
        return f"{error!r} {getattr(error, 'usage', None)}"


@settings(max_examples=500)
@given(replies(), st.sampled_from([None, 0.0015]))
def test_reading_quickly_changes_no_result(body: bytes, cost_per_1k_usd: float | None) -> None:
    """The insight, the usage, the model and every error are those of the careful way."""
    assert outcome(lambda: read_reply(body, cost_per_1k_usd)) == outcome(lambda: read_carefully(body, cost_per_1k_usd))


def test_reading_quickly_changes_no_usage() -> None:
    """For all combinations of counts within the range, at its ends, beyond it and of other types."""
    for prompt, total, ticks in itertools.product(COUNTS, repeat=3):
        usage = USAGE | {"prompt_tokens": prompt, "total_tokens": total, "cost_in_usd_ticks": ticks}
        body = json.dumps(json.loads(reply(finish_reason="stop")) | {"usage": usage}).encode()
        assert outcome(lambda body=body: read_reply(body, 0.0015)) == outcome(
            lambda body=body: read_carefully(body, 0.0015)
        ), usage
