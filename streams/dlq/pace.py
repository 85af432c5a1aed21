"""Pace: at most so many a second, evenly. Pure; the time is passed in."""

import math
import sys

from schemas.errors import Fatal

LEAST_PER_S = 0.1


class Pace:
    """No burst is saved up while nothing happens. `per_s` None lets everything pass at once.

    `most_at_once` is one second's worth: what may be under way together, since all of it arrives in one moment when
    brokers that were silent answer again.
    """

    def __init__(self, per_s: float | None) -> None:
        self._gap_s = 0.0 if per_s is None else 1 / per_s
        self._next_s = float("-inf")
        self.most_at_once = sys.maxsize if per_s is None else max(1, int(per_s))

    def wait_s(self, now_s: float) -> float:
        """Takes the next turn and tells how long it is until then."""
        turn_s = max(now_s, self._next_s)
        self._next_s = turn_s + self._gap_s
        return turn_s - now_s


def check_rate(per_s: float | None) -> None:
    """Raises Fatal with exit code 2 for what is no rate, such as nan, inf and negative numbers."""
    if per_s is not None and not (math.isfinite(per_s) and per_s >= LEAST_PER_S):
        hint = f"give letters a second, {LEAST_PER_S:g} or more; without --rate it is as fast as it goes"
        raise Fatal("--rate is not understood", f"{per_s:g} is no rate", hint, exit_code=2)
