"""How long to wait before the next attempt: exponential, capped, with full jitter. No clock and no sleep of its own."""

from collections.abc import Callable
from dataclasses import dataclass

#: 2^62 steps are beyond every cap; the bound keeps the power a small integer for any number of attempts.
_MAX_DOUBLINGS = 62


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits drawn evenly from 0 to `base_s` x 2^attempt, never above `cap_s`.

    Full jitter, since callers that failed together must not come back together.
    """

    base_s: float
    cap_s: float

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.cap_s:
            raise ValueError("a back-off needs 0 < base_s <= cap_s")

    def delay_s(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after failed attempt number `attempt` (the first is 0); `random` yields 0 <= x < 1."""
        ceiling_s = min(self.cap_s, self.base_s * (1 << min(attempt, _MAX_DOUBLINGS)))
        return random() * ceiling_s
