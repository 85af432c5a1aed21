"""Cheap rules that end conversations of too little value for a call. Precision first: in doubt a text is kept."""

import re
import unicodedata

from agents.prefilter.small_talk import is_small_talk
from schemas.outcome import FilterReason

#: Longer texts are kept unless they are one repeated character: nobody says only "thanks" in so many words.
MAX_LOW_VALUE_CHARS = 500
#: "ok" and "42" say nothing by themselves, "645" or "pin" may.
MIN_WEIGHT = 3
#: A repetition shorter than this may be a word, or an abbreviation.
MIN_REPEATED_CHARS = 4

_URLS = re.compile(r"(?:(?:https?://|www\.)\S+\s*)+", re.IGNORECASE)
#: The first line may carry a role although there is no second one, since one message is a conversation too.
_ROLE = re.compile(r"(?:user|customer|client|agent|assistant|bot|system|support|operator|caller): ", re.IGNORECASE)
_EMOTICON = re.compile(r"[:;=]['-]?[()|/\\\[\]]|<3")
_PUNCTUATION = re.compile(r"[\W_]+")


def low_value(text: str) -> FilterReason | None:
    """The reason why the canonical text is not worth a call, or None to keep it.

    A conversation of several messages is of low value only when each of them is. Linear in the text's length.
    """
    if _is_one_character(text):
        return FilterReason.REPEATED_CHARACTERS
    if len(text) > MAX_LOW_VALUE_CHARS:
        return None
    reasons = [_low_value_turn(turn) for turn in _turns(text)]
    if None in reasons:
        return None
    # What is left of a conversation of mixed reasons is an exchange of courtesies.
    return reasons[0] if len(set(reasons)) == 1 else FilterReason.GREETING_OR_THANKS


def _turns(text: str) -> list[str]:
    """The messages without their roles: canonical text has a line break only between messages."""
    if "\n" not in text:
        return [_ROLE.sub("", text, count=1) if _ROLE.match(text) else text]
    return [line.partition(": ")[2] for line in text.split("\n")]


def _low_value_turn(turn: str) -> FilterReason | None:
    if _URLS.fullmatch(turn):
        return FilterReason.URL_ONLY
    if _is_repeated(turn):
        return FilterReason.REPEATED_CHARACTERS
    if is_small_talk(turn):
        return FilterReason.GREETING_OR_THANKS
    return FilterReason.TOO_SHORT if _weight(turn) < MIN_WEIGHT else None


def _is_one_character(text: str) -> bool:
    """Also for the longest texts, which would cost most: almost all others are told by their first characters."""
    return len(text) >= MIN_REPEATED_CHARS and len(set(text[:64])) == 1 and len(set(text)) == 1


def _is_repeated(turn: str) -> bool:
    """One letter or digit over and over ("aaaa", "z z z z"), or one mark ("!!!!")."""
    dense = "".join(turn.casefold().split())
    if len(dense) < MIN_REPEATED_CHARS:
        return False
    words = _PUNCTUATION.sub("", dense)
    if words:
        return len(words) >= MIN_REPEATED_CHARS and len(set(words)) == 1
    return len(set(dense)) == 1 and dense.isascii()


def _weight(turn: str) -> int:
    """Letters and digits, those of scripts that write syllables or words with one character counting twice.

    A pictogram or an emoticon counts as a word: an angry face is an opinion.
    """
    return MIN_WEIGHT if _EMOTICON.search(turn) else sum(map(_weight_of, turn))


def _weight_of(character: str) -> int:
    category = unicodedata.category(character)
    if category == "Lo":
        return 2
    if category == "So":
        return MIN_WEIGHT
    return 1 if category[0] in "LN" else 0
