"""Accounts for every call, independently of the service under test: statistics, and a journal of finished calls."""

import hashlib
import os
import weakref
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from schemas.errors import Fatal
from streams.dev.standin.faults import FaultKind

#: Faults after which no complete reply was sent.
LOSE_THE_REPLY = frozenset({FaultKind.RESET, FaultKind.RESET_MID_BODY})


class End(StrEnum):
    """How a call ended, as the stand-in saw it."""

    ANSWERED = "answered"  # a complete 200 was sent
    CUT_OFF = "cut_off"  # the client disconnected before the reply was complete
    FAILED = "failed"  # an error status, or a fault that lost the reply


class Call(msgspec.Struct):
    """A call in flight. `text` is the text's digest, `caller` the hash of the key, times are Unix seconds."""

    text: bytes
    caller: str
    began_s: float
    fault: FaultKind | None = None

    def end_by(self, status: int) -> End:
        """Returns the end of a call whose client stayed until the reply with `status`."""
        return End.ANSWERED if status == 200 and self.fault not in LOSE_THE_REPLY else End.FAILED


class Journal:
    """A file with one line of JSON for each finished call. Raises Fatal when it cannot be written."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            why = f"{path}: {error.strerror}"
            raise Fatal("the journal cannot be written", why, "choose another file with --journal") from error
        # Not closed with the server: calls may end after its shutdown.
        weakref.finalize(self, os.close, self._file)

    def append(self, call: Call, end: End, ended_s: float) -> None:
        """Hands the line to the operating system, so that it survives a kill of this process."""
        entry = msgspec.structs.asdict(call) | {"text": call.text.hex(), "end": end, "ended_s": ended_s}
        os.write(self._file, msgspec.json.encode(entry) + b"\n")


class Stats:
    """Counts since the start or the last reset; calls in flight are carried over.

    A call is billed unless it was answered with an error status: a provider may charge for a reply that was cut off,
    late or lost, and the client cannot know.
    """

    def __init__(self) -> None:
        self._in_flight: Counter[str] = Counter()
        self.hanging = 0  # calls in flight that hang
        self.reset()

    def reset(self) -> None:
        """Resets everything but the calls in flight."""
        self._max_in_flight = self._in_flight.total()
        self._cut_off = 0
        self._answered = 0
        self._cost_usd_ticks = 0
        self._asked: Counter[bytes] = Counter()
        self._billed: Counter[bytes] = Counter()
        self._by_status: Counter[int] = Counter()
        self._by_fault: Counter[FaultKind] = Counter()

    def began(self, text: str, caller: str) -> bytes:
        """Counts a valid call of `caller`; returns the text's digest, to be passed to `billed`."""
        digest = hashlib.sha256(text.encode()).digest()
        self._asked[digest] += 1
        self._in_flight[caller] += 1
        self._max_in_flight = max(self._max_in_flight, sum(self._in_flight.values()))
        return digest

    def ended(self, caller: str, *, cut_off: bool) -> None:
        """Counts the end of a call; `cut_off` when the client disconnected before its reply."""
        self._in_flight[caller] -= 1
        if not self._in_flight[caller]:
            del self._in_flight[caller]
        self._cut_off += cut_off

    def billed(self, digest: bytes, cost_usd_ticks: int) -> None:
        """Counts an answer that was made, whether or not it arrives."""
        self._billed[digest] += 1
        self._cost_usd_ticks += cost_usd_ticks

    def faulted(self, kind: FaultKind) -> None:
        """Counts a fault."""
        self._by_fault[kind] += 1

    def replied(self, status: int) -> None:
        """Counts a complete reply."""
        self._by_status[status] += 1
        self._answered += status == 200

    def snapshot(self) -> dict[str, Any]:
        """Returns all figures, for `GET /control/stats`."""
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
            "hanging": self.hanging,
            "max_in_flight": self._max_in_flight,
            "cut_off": self._cut_off,
            "by_status": {str(status): count for status, count in sorted(self._by_status.items())},
            "faults": {kind.value: count for kind, count in sorted(self._by_fault.items())},
        }
