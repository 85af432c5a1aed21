"""Circuit breaker: after errors in a row, calls pause, then one probe decides. Pure: the time is passed in.

closed --errors in a row--> open --cool-down over--> half open --probe succeeded--> closed
                              ^------------------------- probe failed

One text may hang at a provider that is well otherwise: a probe that tells nothing for a whole cool-down makes room for
another one, or that text would hold up all others for as long as it hangs.
"""

from typing import Literal, NewType

BreakerState = Literal["closed", "half_open", "open"]

#: Proof that a call was let through. A result counts only in the period in which its call was admitted.
Permit = NewType("Permit", int)

#: A probe's end cannot be predicted: while one is in flight, other calls look again after this time.
PROBE_WAIT_S = 1.0


class CircuitBreaker:
    """Every permit is given back, by `succeeded`, `failed` or `released`; times are seconds of one clock."""

    def __init__(self, errors: int, cooldown_s: float) -> None:
        if errors < 1 or cooldown_s <= 0:
            raise ValueError("a breaker needs errors >= 1 and cooldown_s > 0")
        self._errors = errors
        self._cooldown_s = cooldown_s
        self._in_a_row = 0
        self._state: BreakerState = "closed"
        self._open_until_s = 0.0
        #: When the latest probe was let through, while one is in flight.
        self._probe_began_s: float | None = None
        # Grows at each change between closed, open and half open, so that results of earlier calls can be recognised.
        self._period = 0

    @property
    def state(self) -> BreakerState:
        """The state after the latest call of a method; an open breaker half opens when the next one is admitted."""
        return self._state

    def admit(self, now_s: float) -> Permit | None:
        """A permit for one call, or None while calls pause."""
        if self._state == "open" and now_s >= self._open_until_s:
            self._enter("half_open")
        if self._state == "open" or self._awaits_probe(now_s):
            return None
        if self._state == "half_open":
            self._probe_began_s = now_s
        return Permit(self._period)

    def retry_after_s(self, now_s: float) -> float:
        """Seconds after which it is worth asking `admit` again; 0 when it is now."""
        if self._state == "open":
            return max(0.0, self._open_until_s - now_s)
        return PROBE_WAIT_S if self._awaits_probe(now_s) else 0.0

    def succeeded(self, permit: Permit) -> None:
        """The provider is well. A probe's success closes the breaker."""
        if permit != self._period:
            return
        self._in_a_row = 0
        if self._state == "half_open":
            self._enter("closed")

    def failed(self, permit: Permit, now_s: float) -> None:
        """The provider is unwell. Opens the breaker at the limit in a row, and at once when a probe fails."""
        if permit != self._period:
            return
        self._in_a_row += 1
        if self._state == "half_open" or self._in_a_row >= self._errors:
            self._open_until_s = now_s + self._cooldown_s
            self._enter("open")

    def released(self, permit: Permit) -> None:
        """The call ended without telling anything of the provider (cancelled); a probe's place is free again."""
        if permit == self._period:
            self._probe_began_s = None

    def _awaits_probe(self, now_s: float) -> bool:
        return self._probe_began_s is not None and now_s - self._probe_began_s < self._cooldown_s

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._in_a_row = 0
        self._probe_began_s = None
        self._period += 1
