"""What the stand-in was asked, counted from outside the service: the oracle for calls and bills. Pure."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streams.standin.faults import FaultKind


class Stats:
    """Counts since the start or the latest reset; calls under way are carried over a reset.

    A call is billed unless it was answered with an error status: cut off, hanging and lost replies are what a
    provider may charge for, and the client cannot know.
    """

    def __init__(self) -> None:
        self._in_flight: Counter[str] = Counter()
        self._hanging = 0
        self.reset()

    def reset(self) -> None:
        """Forgets all but the calls under way."""
        self._max_in_flight = self._in_flight.total()
        self._cut_off = 0
        self._answered = 0
        self._cost_usd_ticks = 0
        self._asked: Counter[bytes] = Counter()
        self._billed: Counter[bytes] = Counter()
        self._by_status: Counter[int] = Counter()
        self._by_fault: Counter[FaultKind] = Counter()

    def began(self, text: str, caller: str) -> bytes:
        """A well-formed call of `caller` came in; the text's digest, by which `billed` knows it."""
        digest = hashlib.sha256(text.encode()).digest()
        self._asked[digest] += 1
        self._in_flight[caller] += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight.total())
        return digest

    def ended(self, caller: str, *, cut_off: bool) -> None:
        """A call of `caller` is over; `cut_off` when the client went away before its reply."""
        self._in_flight[caller] -= 1
        if not self._in_flight[caller]:
            del self._in_flight[caller]
        self._cut_off += cut_off

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """One more call hangs meanwhile."""
        self._hanging += 1
        try:
            yield
        finally:
            self._hanging -= 1

    def billed(self, digest: bytes, cost_usd_ticks: int) -> None:
        """The call's answer was made, whether or not it arrives."""
        self._billed[digest] += 1
        self._cost_usd_ticks += cost_usd_ticks

    def faulted(self, kind: FaultKind) -> None:
        """A fault was shown."""
        self._by_fault[kind] += 1

    def replied(self, status: int) -> None:
        """A whole reply was sent."""
        self._by_status[status] += 1
        self._answered += status == 200

    def snapshot(self) -> dict[str, Any]:
        """All figures, for `GET /control/stats`."""
        return {
            "calls": self._asked.total(),
            "distinct_texts": len(self._asked),
            "repeated_texts": sum(count > 1 for count in self._asked.values()),
            "answered": self._answered,
            "billed": self._billed.total(),
            "billed_texts": len(self._billed),
            "billed_again_texts": sum(count > 1 for count in self._billed.values()),
            "billed_usd_ticks": self._cost_usd_ticks,
            "in_flight": self._in_flight.total(),
            "in_flight_by_caller": dict(self._in_flight),
            "hanging": self._hanging,
            "max_in_flight": self._max_in_flight,
            "cut_off": self._cut_off,
            "by_status": {str(status): count for status, count in sorted(self._by_status.items())},
            "faults": {kind.value: count for kind, count in sorted(self._by_fault.items())},
        }
