"""The outcomes of a conversation.

Every one ends as exactly one of analysed, cached, filtered and dead.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, assert_never, get_args

from schemas.dead_letter import DeadLetterReason
from schemas.errors import Unprocessable
from schemas.insight import Answer


class FilterReason(StrEnum):
    """Why the prefilter dropped a text; labels of `prefilter_skips_total`."""

    TOO_SHORT = "too_short"
    URL_ONLY = "url_only"
    REPEATED_CHARACTERS = "repeated_characters"
    GREETING_OR_THANKS = "greeting_or_thanks"


@dataclass(frozen=True, slots=True)
class Analysed:
    """A call was made for this conversation and returned this answer."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Cached:
    """The answer came from an equal text: from the table `answers`, or from its call in flight."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Filtered:
    """The text is not worth a call."""

    reason: FilterReason


@dataclass(frozen=True, slots=True)
class Dead:
    """The record became a dead letter.

    `detail` is for operators and never holds conversation text.
    """

    reason: DeadLetterReason
    detail: str


def dead_by(error: Unprocessable) -> Dead:
    """The outcome of a record that `error` sets aside."""
    return Dead(DeadLetterReason(error.reason), error.detail)


Outcome = Analysed | Cached | Filtered | Dead
OutcomeName = Literal["analysed", "cached", "filtered", "dead"]
OUTCOME_NAMES: tuple[OutcomeName, ...] = get_args(OutcomeName)


def outcome_name(outcome: Outcome) -> OutcomeName:
    """Returns the name used in rows, events and metric labels."""
    match outcome:
        case Analysed():
            return "analysed"
        case Cached():
            return "cached"
        case Filtered():
            return "filtered"
        case Dead():
            return "dead"
        case _:
            assert_never(outcome)
