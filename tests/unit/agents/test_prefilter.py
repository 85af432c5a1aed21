"""The prefilter: what is dropped for which reason, and above all what is kept."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.prefilter.low_value import MAX_LOW_VALUE_CHARS, low_value
from schemas.outcome import FilterReason


@pytest.mark.parametrize("text", ["ok", "a", "42", "", "...", "-", "хм", "退"])
def test_too_little_to_say_anything(text: str) -> None:
    """Fewer than three letters or digits; a lone ideograph, too."""
    assert low_value(text) in (FilterReason.TOO_SHORT, FilterReason.GREETING_OR_THANKS)


@pytest.mark.parametrize(
    "text", ["退款", "환불", "返金", "645", "pin", "😡", ":(", "كيف", "помогите", "ยกเลิก", "4 pizza", "coffee", "wtf"]
)
def test_short_requests_and_opinions_are_kept(text: str) -> None:
    """Two ideographs can be a request, and a face an opinion."""
    assert low_value(text) is None


@pytest.mark.parametrize("text", ["https://example.org/a?b=c", "www.example.org", "http://a.example https://b.example"])
def test_only_links(text: str) -> None:
    """Nobody can tell from a link alone what the conversation is about."""
    assert low_value(text) is FilterReason.URL_ONLY


def test_a_link_with_words_is_kept() -> None:
    """One word beside the link may be the complaint."""
    assert low_value("broken: https://example.org") is None


@pytest.mark.parametrize("text", ["aaaaaaa", "!!!!!!", "zzzz zzzz", "哈哈哈哈", "----------", "x" * 100_000])
def test_one_character_over_and_over(text: str) -> None:
    """Also at lengths that would cost most."""
    assert low_value(text) is FilterReason.REPEATED_CHARACTERS


@pytest.mark.parametrize(
    "text",
    [
        "hi",
        "Hello there",
        "good morning",
        "hi Casey",
        "thank you so much",
        "ok thanks for your help, have a nice day!",
        "No thanks, that's all. Bye",
        "thanks for the quick response and your help today",
        "great thanks",
        "ok thanks no problem",
        "Thanks 🙏",
        "bye bye take care",
        "user: hello",
        "user: hi there\nagent: hello\nuser: thanks, bye",
    ],
)
def test_courtesies_alone(text: str) -> None:
    """Greeting, thanks, assent and farewell, in one message or in all of several."""
    assert low_value(text) is FilterReason.GREETING_OR_THANKS


@pytest.mark.parametrize(
    "text",
    [
        "hi, my order is late",
        "hello?",
        "thanks for nothing",
        "thank you, but it is still broken",
        "thanks for the help me with refund",
        "ok cancel it",
        "no service",
        "good service",
        "Thanks so much!!!",
        "thanks :(",
        "thanks 😡",
        "Okay...",
        "great",
        "hi pizza",
        "please help",
        "no help",
        "user: hi\nagent: hello\nuser: where is my parcel",
        "ma: no\nmb: refund please",
    ],
)
def test_courtesies_with_a_request_or_a_tone_are_kept(text: str) -> None:
    """One unknown word, a question mark or a mark of feeling keeps the whole conversation."""
    assert low_value(text) is None


def test_a_conversation_of_mixed_low_value_ends_as_courtesies() -> None:
    """Each turn is of low value, for different reasons."""
    assert low_value("user: hello there\nagent: https://example.org") is FilterReason.GREETING_OR_THANKS


def test_long_texts_are_kept() -> None:
    """So many thanks are suspicious enough to be looked at."""
    assert low_value("thank you " * MAX_LOW_VALUE_CHARS) is None


@given(st.text(max_size=600))
def test_any_text_has_an_answer(text: str) -> None:
    """No text makes the prefilter fail."""
    assert low_value(text) is None or isinstance(low_value(text), FilterReason)


@pytest.mark.parametrize(
    "part", ["thank you ", "have a very nice ", "thanks for the ", "no more ", "www.", "a\n", "!", "ok. "]
)
def test_repetition_with_a_wrong_end_takes_linear_time(part: str) -> None:
    """The classic attack on patterns; the bound is a thousand times what is needed, and far below exponential."""
    began = time.process_time()
    low_value((part * 200)[:490] + "order#")
    assert time.process_time() - began < 2
