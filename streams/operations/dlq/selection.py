"""Selects dead letters by reason, age, id and conversation, and decides which a replay sends. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from schemas.errors import Fatal
from streams.operations.dlq.dead_letter import DeadLetterId, StoredDeadLetter, parse_id
from streams.operations.dlq.ledger import ReplayLedger

#: A record that died again after so many replays will die once more; a person has to look at it first.
MAX_REPLAYS = 3
_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


@dataclass(frozen=True, slots=True)
class Filters:
    """A dead letter must pass every filter that is set."""

    reasons: frozenset[str] = frozenset()
    since: datetime | None = None
    ids: frozenset[DeadLetterId] = frozenset()
    conversations: frozenset[str] = frozenset()

    @property
    def are_empty(self) -> bool:
        """True when every dead letter passes."""
        return self == Filters()

    def match(self, dead_letter: StoredDeadLetter) -> bool:
        """Whether the dead letter passes."""
        if self.reasons and dead_letter.reason not in self.reasons:
            return False
        if self.since is not None and dead_letter.at < self.since:
            return False
        if self.ids and dead_letter.id not in self.ids:
            return False
        return not self.conversations or (dead_letter.key or b"").decode(errors="replace") in self.conversations


def parse_filters(
    reasons: Iterable[str], since: str | None, ids: Iterable[str], conversations: Iterable[str], now: datetime
) -> Filters:
    """Parses the options of the command line. Raises Fatal with exit code 2 for an invalid one."""
    return Filters(
        frozenset(reasons),
        None if since is None else parse_since(since, now),
        frozenset(map(_parse_id, ids)),
        frozenset(map(_parse_conversation, conversations)),
    )


def parse_since(text: str, now: datetime) -> datetime:
    """Parses a duration before `now` (90s, 30m, 2h, 3d, 1w) or an ISO 8601 timestamp, UTC unless it says otherwise.

    Raises Fatal with exit code 2 for anything else.
    """
    try:
        if duration := _DURATION.fullmatch(text):
            return now - timedelta(seconds=int(duration[1]) * _UNIT_S[duration[2]])
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        what = f"invalid --since: {text!r} is neither a duration (2h) nor an ISO 8601 timestamp"
        raise Fatal(what, hint="examples: 30m, 2h, 3d, 2026-01-31T12:00:00Z", exit_code=2) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _parse_id(text: str) -> DeadLetterId:
    dead_letter_id = parse_id(text)
    if dead_letter_id is None:
        hint = "expected PARTITION:OFFSET, for example 3:17; select conversations with --conversation"
        raise Fatal(f"invalid --id: {text!r} is not a dead-letter ID", hint=hint, exit_code=2)
    return dead_letter_id


def _parse_conversation(text: str) -> str:
    if not text or parse_id(text) is not None:
        what = f"{text!r} is a dead-letter ID" if text else "the conversation's ID is empty"
        raise Fatal(f"invalid --conversation: {what}", hint="select dead letters with --id", exit_code=2)
    return text


class Eligibility(Enum):
    """Whether a replay sends a dead letter. All but FILTERED and REPLAYED ones are unresolved."""

    ELIGIBLE = auto()
    FILTERED = auto()
    REPLAYED = auto()
    TOO_OFTEN = auto()  # died again after MAX_REPLAYS replays
    FOREIGN = auto()  # written by another program, without an origin


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters and ledger together; with `again`, neither a mark nor earlier replays make a dead letter ineligible."""

    filters: Filters
    ledger: ReplayLedger
    again: bool = False

    def eligibility(self, dead_letter: StoredDeadLetter) -> Eligibility:
        """Decides about one dead letter."""
        if not self.filters.match(dead_letter):
            return Eligibility.FILTERED
        if dead_letter.origin is None:
            return Eligibility.FOREIGN
        if self.again:
            return Eligibility.ELIGIBLE
        if self.ledger.mark_of(dead_letter) is not None:
            return Eligibility.REPLAYED
        return Eligibility.TOO_OFTEN if dead_letter.replays >= MAX_REPLAYS else Eligibility.ELIGIBLE
