"""The prefilter drops low-value texts with the right reason and keeps all others."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.prefilter import low_value as rules
from agents.prefilter import small_talk
from agents.prefilter.low_value import MAX_LOW_VALUE_CHARS, low_value
from agents.text_key import canonical_text
from schemas.conversation import decode_conversation
from schemas.outcome import FilterReason
from streams.resources import infra


@pytest.mark.parametrize("text", ["ok", "a", "42", "", "...", "-", "хм", "退"])
def test_too_little_to_say_anything(text: str) -> None:
    """Fewer than three letters or digits, or a single ideograph."""
    assert low_value(text) in (FilterReason.TOO_SHORT, FilterReason.GREETING_OR_THANKS)


@pytest.mark.parametrize(
    "text", ["退款", "환불", "返金", "645", "pin", "😡", ":(", "كيف", "помогите", "ยกเลิก", "4 pizza", "coffee", "wtf"]
)
def test_short_requests_and_opinions_are_kept(text: str) -> None:
    """Two ideographs can be a request, and a face an opinion."""
    assert low_value(text) is None


@pytest.mark.parametrize("text", ["https://example.org/a?b=c", "www.example.org", "http://a.example https://b.example"])
def test_only_links(text: str) -> None:
    """A link alone does not say what the conversation is about."""
    assert low_value(text) is FilterReason.URL_ONLY


def test_a_link_with_words_is_kept() -> None:
    """One word beside the link may be the complaint."""
    assert low_value("broken: https://example.org") is None


@pytest.mark.parametrize("text", ["aaaaaaa", "!!!!!!", "zzzz zzzz", "----------", "x" * 100_000, "😡" * 501])
def test_one_character_over_and_over(text: str) -> None:
    """Also at lengths that would cost most."""
    assert low_value(text) is FilterReason.REPEATED_CHARACTERS


@pytest.mark.parametrize(
    "text", ["😡😡😡😡", "👎👎👎👎👎", "⭐⭐⭐⭐⭐", "user: 👎 👎 👎 👎", "坏坏坏坏", "👎🏽👎🏽👎🏽👎🏽"]
)
def test_a_word_of_one_character_over_and_over_is_an_opinion(text: str) -> None:
    """A pictogram is one, and so is a character of a script that writes words with one."""
    assert low_value(text) is None


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
    """Greetings and thanks alone are never this long."""
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


def low_value_by_every_rule(text: str) -> FilterReason | None:
    """Applies every rule to all of the text, with none of the shortcuts."""
    is_long = len(text) > MAX_LOW_VALUE_CHARS
    if len(text) >= rules.MIN_REPEATED_CHARS and len(set(text)) == 1 and (is_long or not rules._is_word(text)):
        return FilterReason.REPEATED_CHARACTERS
    if len(text) > MAX_LOW_VALUE_CHARS:
        return None
    reasons = [turn_by_every_rule(turn) for turn in rules._turns(text)]
    if None in reasons:
        return None
    return reasons[0] if len(set(reasons)) == 1 else FilterReason.GREETING_OR_THANKS


def turn_by_every_rule(turn: str) -> FilterReason | None:
    dense = "".join(turn.casefold().split())
    stripped = rules._PUNCTUATION.sub("", dense)
    repeated = stripped or dense
    words = " ".join(small_talk._TOKENS.findall(turn.casefold().replace("’", "'")))
    marks = small_talk._TOKENS.sub("", turn)
    weight = sum(map(rules._weight_of, turn))
    if rules._URLS.fullmatch(turn):
        return FilterReason.URL_ONLY
    is_noise = not rules._is_word(stripped) if stripped else dense.isascii()
    if len(repeated) >= rules.MIN_REPEATED_CHARS and len(set(repeated)) == 1 and is_noise:
        return FilterReason.REPEATED_CHARACTERS
    if small_talk._SMALL_TALK.fullmatch(words) and small_talk._NEUTRAL_MARKS.fullmatch(marks):
        return FilterReason.GREETING_OR_THANKS
    is_weighty = weight >= rules.MIN_WEIGHT or rules._EMOTICON.search(turn)
    return None if is_weighty else FilterReason.TOO_SHORT


#: The alternatives in the pattern: "thank you", "ma'am", "have", ...
PHRASES = sorted(set(re.findall(r"[a-z']+(?: [a-z']+)*", small_talk._SMALL_TALK.pattern.replace("\\ ", " "))))
PIECES = (
    st.sampled_from(PHRASES)
    | st.sampled_from(
        ["for", "for the", "have a nice", "Thanks", "OK", "MA’AM", "pizza", "order", "aaaa", "zZ", "ß", "İ"]
    )
    | st.sampled_from(
        [*"?!.,;-_:~*'’\"/()0a4é退хきك", "!!", "...", ":(", "<3", "😡", "🙏", "👋", "\u0301", "\u200d", "42"]
    )
    | st.sampled_from(["user: ", "Agent: ", "ma: ", "\nuser: ", "\nagent: ", "\n", "https://a.example/b", "www."])
)
TEXTS = st.lists(st.tuples(PIECES, st.sampled_from(["", " ", " ", " "])), max_size=8).map(
    lambda pieces: "".join(piece + separator for piece, separator in pieces).strip(" ")
)


@settings(max_examples=1000)
@example("aAaA")
@given(TEXTS | TEXTS.map(lambda text: text * 30) | st.text(max_size=20))
def test_shortcuts_change_no_reason(text: str) -> None:
    """A rule that stops early decides as it would at the end of the text."""
    assert low_value(text) is low_value_by_every_rule(text)


def test_shortcuts_know_every_phrase() -> None:
    """Each phrase of the vocabulary, alone and after a courtesy."""
    for phrase in PHRASES:
        for text in (phrase, f"thanks {phrase}", f"thanks for {phrase}"):
            assert low_value(text) is low_value_by_every_rule(text)


def test_shortcuts_change_no_reason_of_a_real_text() -> None:
    """The demo's conversations, as a whole and each message by itself."""
    for line in (infra("sample") / "sample.jsonl").read_bytes().splitlines():
        conversation = decode_conversation(line, from_topic=True)[0]
        for text in (canonical_text(conversation), *(message.text for message in conversation.messages or ())):
            assert low_value(text) is low_value_by_every_rule(text)


def test_the_small_talk_pattern_spells_out_its_words() -> None:
    """Otherwise the vocabulary that is taken from it would miss a word, and courtesies with that word be kept."""
    syntax = r"\(\?>|\(\?:|\(\?!\\S\)|\)[*+?]{0,2}|\||\\? "
    assert re.fullmatch(f"(?:{syntax}|[a-z']+)*", small_talk._SMALL_TALK.pattern)
