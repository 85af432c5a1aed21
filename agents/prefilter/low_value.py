"""Rules that filter out conversations of too little value for a call. In doubt a text is kept."""

import re
import unicodedata

from agents.prefilter.small_talk import is_small_talk
from schemas.outcome import FilterReason

#: Longer texts are kept unless they repeat one character: greetings and thanks alone are never this long.
MAX_LOW_VALUE_CHARS = 500
#: "ok" and "42" say nothing by themselves, "645" or "pin" may.
MIN_WEIGHT = 3
#: A shorter repetition may be a word or an abbreviation.
MIN_REPEATED_CHARS = 4
#: The part of a text that is read first: two different characters there rule a repetition out.
_GLANCE_CHARS = 16

_URLS = re.compile(r"(?:(?:https?://|www\.)\S+\s*)+", re.IGNORECASE)
#: A conversation of one message has a role as well.
_ROLE = re.compile(r"(?:user|customer|client|agent|assistant|bot|system|support|operator|caller): ", re.IGNORECASE)
_EMOTICON = re.compile(r"[:;=]['-]?[()|/\\\[\]]|<3")
_PUNCTUATION = re.compile(r"[\W_]+")


def low_value(text: str) -> FilterReason | None:
    """Returns why the canonical text is not worth a call, or None to keep it.

    A conversation of several messages is of low value only if each of them is. Nearly every text is kept, so each rule
    stops at the first characters that rule it out. Takes linear time in the text's length.
    """
    if _is_one_character(text):
        return FilterReason.REPEATED_CHARACTERS
    if len(text) > MAX_LOW_VALUE_CHARS:
        return None
    reasons = set()
    for turn in _turns(text):
        reason = _low_value_turn(turn)
        if reason is None:
            return None
        reasons.add(reason)
    # Messages that are of low value for different reasons are an exchange of courtesies.
    return reasons.pop() if len(reasons) == 1 else FilterReason.GREETING_OR_THANKS


def _turns(text: str) -> list[str]:
    """Returns the messages without their roles: canonical text has a line break only between messages."""
    if "\n" in text:
        return [line.partition(": ")[2] for line in text.split("\n")]
    role = _ROLE.match(text)
    return [text[role.end() :] if role else text]


def _low_value_turn(turn: str) -> FilterReason | None:
    if _URLS.fullmatch(turn):
        return FilterReason.URL_ONLY
    if _is_repeated(turn):
        return FilterReason.REPEATED_CHARACTERS
    if is_small_talk(turn):
        return FilterReason.GREETING_OR_THANKS
    return None if _is_weighty(turn) else FilterReason.TOO_SHORT


def _is_one_character(text: str) -> bool:
    if len(text) < MIN_REPEATED_CHARS or text[0] != text[1] or text != text[0] * len(text):
        return False
    return len(text) > MAX_LOW_VALUE_CHARS or not _is_word(text)


def _is_repeated(turn: str) -> bool:
    """Returns whether it is one letter or digit over and over ("aaaa", "z z z z"), or one mark ("!!!!")."""
    if len(_letters(turn[:_GLANCE_CHARS])) > 1:
        return False
    dense = "".join(turn.casefold().split())
    if len(dense) < MIN_REPEATED_CHARS:
        return False
    words = _PUNCTUATION.sub("", dense)
    if words:
        return len(words) >= MIN_REPEATED_CHARS and len(set(words)) == 1 and not _is_word(words)
    return len(set(dense)) == 1 and dense.isascii()


def _is_word(text: str) -> bool:
    """Returns whether its first character is a word by itself: five thumbs down, or "bad" five times in Chinese."""
    return _weight_of(text[0]) > 1


def _letters(text: str) -> set[str]:
    return set(_PUNCTUATION.sub("", text.casefold()))


def _is_weighty(turn: str) -> bool:
    """Returns whether it has enough letters and digits to mean something.

    Those of scripts that write a syllable or a word with one character count twice. A pictogram or an emoticon counts
    as a word: an angry face is an opinion.
    """
    weight = 0
    for character in turn:
        weight += _weight_of(character)
        if weight >= MIN_WEIGHT:
            return True
    return _EMOTICON.search(turn) is not None


def _weight_of(character: str) -> int:
    category = unicodedata.category(character)
    if category == "Lo":
        return 2
    if category == "So":
        return MIN_WEIGHT
    return 1 if category[0] in "LN" else 0
