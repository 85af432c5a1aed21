"""One call as the journal tells it: whose, which text, when, and how it ended. Pure: the time is passed in."""

from enum import StrEnum

import msgspec

from streams.standin.faults import FaultKind

#: Faults after which no whole reply was sent.
LOSE_THE_REPLY = frozenset({FaultKind.RESET, FaultKind.RESET_MID_BODY})


class End(StrEnum):
    """How a call ended, as the stand-in saw it."""

    ANSWERED = "answered"  # a whole 200 was sent
    CUT_OFF = "cut_off"  # the client went away before the reply was complete
    FAILED = "failed"  # an error status, or a fault that lost the reply


class Call(msgspec.Struct):
    """A call under way. `text` is the text's digest, `caller` the fingerprint of the key, times are Unix seconds."""

    text: bytes
    caller: str
    began_s: float
    fault: FaultKind | None = None

    def end_by(self, status: int) -> End:
        """How a call ends whose client stayed until it was replied to with `status`."""
        return End.ANSWERED if status == 200 and self.fault not in LOSE_THE_REPLY else End.FAILED

    def entry(self, end: End, ended_s: float) -> "Entry":
        """The call's line in the journal."""
        return Entry(self.text.hex(), self.caller, self.began_s, ended_s, end, self.fault)


class Entry(msgspec.Struct, frozen=True):
    """A line of the journal: a call that is over."""

    text: str
    caller: str
    began_s: float
    ended_s: float
    end: End
    fault: FaultKind | None
