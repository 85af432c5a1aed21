"""Pace: at most so many a second, evenly. Pure; the time is passed in."""


class Pace:
    """No burst is saved up while nothing happens. `per_s` None lets everything pass at once."""

    def __init__(self, per_s: float | None) -> None:
        self._gap_s = 0.0 if per_s is None else 1 / per_s
        self._next_s = float("-inf")

    def wait_s(self, now_s: float) -> float:
        """Takes the next turn and tells how long it is until then."""
        turn_s = max(now_s, self._next_s)
        self._next_s = turn_s + self._gap_s
        return turn_s - now_s
