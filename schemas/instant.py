"""Instant: a timestamp with a UTC offset, as in all messages (RFC 3339); and durations, as in `since=2h`."""

import re
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]

_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def time_ago(duration: str, now: datetime) -> datetime | None:
    """Returns the time a duration (90s, 30m, 2h, 3d, 1w) before `now`, or None if the text is not a duration.

    Raises OverflowError for one that begins before the year 1.
    """
    match = _DURATION.fullmatch(duration)
    return now - timedelta(seconds=int(match[1]) * _UNIT_S[match[2]]) if match else None
