"""Which letters are meant: by reason, by age, by letter, by conversation. Pure; the time is passed in."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.errors import Fatal
from streams.dlq.letter import Letter, LetterId, parse_letter_id

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


@dataclass(frozen=True, slots=True)
class Filters:
    """A letter must pass each filter that is set."""

    reasons: frozenset[str] = frozenset()
    since: datetime | None = None
    ids: frozenset[LetterId] = frozenset()
    conversations: frozenset[str] = frozenset()

    @property
    def are_empty(self) -> bool:
        """True when every letter passes."""
        return self == Filters()

    def match(self, letter: Letter) -> bool:
        """True for a letter that is meant."""
        if self.reasons and letter.reason not in self.reasons:
            return False
        if self.since is not None and letter.at < self.since:
            return False
        if self.ids and letter.id not in self.ids:
            return False
        return not self.conversations or _key(letter) in self.conversations


def filters_of(
    reasons: Iterable[str], since: str | None, ids: Iterable[str], conversations: Iterable[str], now: datetime
) -> Filters:
    """As they are given on the command line. Raises Fatal with exit code 2 for what is not of its option's form."""
    return Filters(
        frozenset(reasons),
        None if since is None else parse_since(since, now),
        frozenset(map(_letter_id, ids)),
        frozenset(map(_conversation, conversations)),
    )


def parse_since(text: str, now: datetime) -> datetime:
    """A time span back from `now` (90s, 30m, 2h, 3d, 1w) or an ISO time, which is UTC where it names no zone.

    Raises Fatal with exit code 2 for anything else.
    """
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(seconds=int(ago[1]) * _UNIT_S[ago[2]])
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        hint = "give a span such as 30m, 2h or 3d, or a time such as 2026-01-31T12:00:00Z"
        raise Fatal("--since is not understood", f"{text!r} is no time", hint, exit_code=2) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _letter_id(text: str) -> LetterId:
    letter_id = parse_letter_id(text)
    if letter_id is None:
        hint = "give partition:offset, as `grok-insights dlq list` shows it; conversations are named by --conversation"
        raise Fatal("--id names no letter", f"{text!r} is not partition:offset", hint, exit_code=2)
    return letter_id


def _conversation(text: str) -> str:
    if not text or parse_letter_id(text) is not None:
        why = f"{text!r} is a letter's name" if text else "the id is empty"
        raise Fatal("--conversation names no conversation", why, "letters are named by --id", exit_code=2)
    return text


def _key(letter: Letter) -> str | None:
    return None if letter.key is None else letter.key.decode(errors="replace")
