"""Which letters are meant: by reason, by age, by id. Pure; the time is passed in."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.errors import Fatal
from streams.dlq.letter import Letter

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


@dataclass(frozen=True, slots=True)
class Filters:
    """A letter must pass each filter that is set. An id is a letter's (partition:offset) or a conversation's."""

    reasons: frozenset[str]
    since: datetime | None
    ids: frozenset[str]

    @property
    def are_empty(self) -> bool:
        """True when every letter passes."""
        return not self.reasons and self.since is None and not self.ids

    def match(self, letter: Letter) -> bool:
        """True for a letter that is meant."""
        if self.reasons and letter.reason not in self.reasons:
            return False
        if self.since is not None and letter.at < self.since:
            return False
        return not self.ids or str(letter.id) in self.ids or _key(letter) in self.ids


def filters_of(reasons: Iterable[str], since: str | None, ids: Iterable[str], now: datetime) -> Filters:
    """As they are given on the command line. Raises Fatal with exit code 2 for a time that is none."""
    return Filters(frozenset(reasons), None if since is None else parse_since(since, now), frozenset(ids))


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


def _key(letter: Letter) -> str | None:
    return None if letter.key is None else letter.key.decode(errors="replace")
