"""Checks that no text was paid for twice without a reason, by the stand-in's journal and the faults. Pure."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.chaos.evidence import Call
from tests.chaos.verdict import Verdict

#: Faults after which the answer still arrives.
_HARMLESS = (None, "slow_body", "no_usage")
_BAD_ANSWERS = ("bad_schema", "bad_json")
#: How long an answer may take to reach the changelog while brokers accept writes; the machine may be busy.
_KEPT_WITHIN_S = 5.0
#: A worker that the group had replaced keeps its unkept answers once it is a member again. The first to come back forms
#: a generation of its own and lets the others in after a drain, which took 10 s on two cores.
_IN_THE_GROUP_AGAIN_WITHIN_S = 20.0
#: A worker whose partitions are revoked gives hanging calls up some seconds before the rebalance is over.
_LET_GO_BEFORE_S, _LET_GO_AFTER_S = 20.0, 5.0
#: A request waits in the stand-in's socket before it is read and counts as begun, maybe after its worker was killed or
#: frozen. The worker cannot have been restarted so soon after.
_READ_LATE_S = 1.0
#: A thawed worker sends what it was just handing to the socket: one request at most, and at once.
_HALF_SENT_S = 0.05
_ASKS_FOR_A_GOOD_ANSWER = 2
#: Ways of losing a call in which its worker keeps what it remembers.
_LIVES_ON = ("given_up", "moved")


class Death(NamedTuple):
    """What cut a worker's calls off: killed, frozen (past its session), stopped, given_up (replaced by the group while
    the brokers were frozen), or, for a single call, moved (its partition). A stop begins at `at_s`; the worker keeps
    answers until it ends, `took_s` later."""

    caller: str
    at_s: float
    kind: str
    took_s: float = 0.0

    @property
    def over_s(self) -> float:
        """Returns the time from which it keeps no answer."""
        return self.at_s + self.took_s


class Freeze(NamedTuple):
    """The time between SIGSTOP and SIGCONT of a worker."""

    caller: str
    from_s: float
    to_s: float


class Outage(NamedTuple):
    """A time in which not all brokers took writes."""

    from_s: float
    to_s: float


@dataclass(frozen=True)
class FaultHistory:
    """`moves_s` are the times at which the group had a new generation, in order."""

    deaths: Sequence[Death]
    outages: Sequence[Outage]
    moves_s: Sequence[float]
    freezes: Sequence[Freeze] = ()

    def is_outage(self, from_s: float, to_s: float) -> bool:
        """Whether there was an outage at any time in between."""
        return any(outage.from_s <= to_s and from_s <= outage.to_s for outage in self.outages)

    def moves(self, from_s: float, to_s: float) -> int:
        """The number of rebalances in between."""
        return bisect_right(self.moves_s, to_s) - bisect_left(self.moves_s, from_s)

    def moved_soon(self, from_s: float, within_s: float) -> bool:
        """Whether a rebalance ended in time; one that an outage interrupts may end after the outage."""
        until_s = from_s + within_s
        until_s = max([until_s, *(outage.to_s for outage in self.outages if outage.from_s <= until_s)])
        return self.moves(from_s, until_s) > 0


class CallJudge:
    """`kept_s`: text digest -> times at which its answer was written to the changelog. `ended`: digests of all texts
    whose answer is in a row."""

    def __init__(
        self, kept_s: Mapping[str, Sequence[float]], ended: Collection[str], faults: FaultHistory, verdict: Verdict
    ) -> None:
        self._kept_s, self._ended, self._history, self._verdict = kept_s, ended, faults, verdict
        self._deaths: dict[str, list[Death]] = defaultdict(list)
        for death in sorted(faults.deaths, key=lambda death: death.at_s):
            self._deaths[death.caller].append(death)
        #: Each of these may still excuse one call.
        self._freezes = list(faults.freezes)

    def judge(self, calls: Iterable[Call]) -> None:
        """A text has one call, unless one was cut off: in flight, its answer not kept, when its worker was lost. Calls
        that the stand-in spoiled itself are judged apart: another must follow."""
        good: dict[str, list[Call]] = defaultdict(list)
        spoiled: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in sorted(calls, key=lambda call: call.began_s):
            if _is_good(call):
                good[call.text].append(call)
            else:
                spoiled[call.text, call.fault or ""].append(call)
        for text, asked in good.items():
            self._judge_text(text, asked)
        for (_, fault), asked in spoiled.items():
            self._judge_spoiled(fault, asked)
        for text in self._ended - good.keys():
            self._verdict.violation("unbalanced", f"text {text[:8]} has a row and was never asked about")
        figures = self._verdict.figures
        figures["calls"], figures["distinct_texts"] = sum(map(len, good.values())), len(self._ended)
        figures["spoiled"] = sum(map(len, spoiled.values()))
        figures["cut_off"] += figures["half_sent"]
        if figures["calls"] > figures["distinct_texts"] + figures["cut_off"] and not self._verdict.counts["paid_again"]:
            self._verdict.violation("paid_again", f"{figures['calls']} calls, {figures['cut_off']} of them cut off")

    def _judge_text(self, text: str, asked: Sequence[Call]) -> None:
        kept_s = self._kept_s.get(text, ())
        losses = [self._losses(call, kept_s) for call in asked]
        # After a call that was lost with its worker, a text may get bad answers only and die of them.
        unlost = any(call.end == "answered" and not lost for call, lost in zip(asked, losses, strict=True))
        if not kept_s and unlost:
            self._verdict.violation("paid_again", f"text {text[:8]} was answered and its answer never kept")
        self._verdict.figures["cut_off"] += sum(map(bool, losses))
        for number, again in enumerate(asked[1:], start=1):
            for first, lost in zip(asked[:number], losses[:number], strict=True):
                if not any(_may_follow(loss, again) for loss in lost):
                    if not self._was_half_sent(again):
                        self._verdict.violation("paid_again", _story(first, again, kept_s))
                    break

    def _was_half_sent(self, call: Call) -> bool:
        """Whether its worker was frozen after its last check of the lease, in the step before the socket."""
        for freeze in self._freezes:
            if freeze.caller == call.caller and 0 <= call.began_s - freeze.to_s <= _HALF_SENT_S:
                self._freezes.remove(freeze)
                self._verdict.figures["half_sent"] += 1
                return True
        return False

    def _losses(self, call: Call, kept_s: Sequence[float]) -> list[Death]:
        """Returns how it was lost. A worker that was given up may also die before it can keep what it remembers."""
        lost = [death for death in self._deaths.get(call.caller, ()) if self._is_lost(call, death, kept_s)]
        given_up = next((death for death in lost if death.kind == "given_up"), None)
        died = next((death for death in lost if death.kind != "given_up"), None)
        if given_up and died and self._had_time_to_keep(given_up.at_s, died.at_s):
            died = None
        if not lost and call.end == "answered" and self._moved_unkept(call, kept_s):
            return [Death(call.caller, call.ended_s, "moved")]
        return [death for death in (given_up, died) if death]

    def _had_time_to_keep(self, given_up_s: float, death_s: float) -> bool:
        """Whether the worker was a member again for some time before its death."""
        return self._history.moves(given_up_s, death_s - _IN_THE_GROUP_AGAIN_WITHIN_S) > 0

    def _moved_unkept(self, call: Call, kept_s: Sequence[float]) -> bool:
        """Whether the partition moved while no broker took the answer: the next owner cannot know it."""
        until_s = call.ended_s + _KEPT_WITHIN_S
        return (
            self._history.is_outage(call.ended_s, until_s)
            and self._history.moved_soon(call.ended_s, _LET_GO_BEFORE_S)
            and not any(call.began_s <= kept <= until_s for kept in kept_s)
        )

    def _is_lost(self, call: Call, death: Death, kept_s: Sequence[float]) -> bool:
        """A worker that is stopped gracefully has time to finish its calls, if brokers take their answers."""
        late_s = _READ_LATE_S if death.kind in ("killed", "frozen") else 0
        if death.at_s < call.began_s - late_s or any(call.began_s <= kept <= death.over_s for kept in kept_s):
            return False
        could_not_keep = self._history.is_outage(call.ended_s, death.over_s)
        if death.kind == "stopped":
            return could_not_keep
        return could_not_keep or death.at_s <= call.ended_s + _KEPT_WITHIN_S

    def _judge_spoiled(self, fault: str, asked: Sequence[Call]) -> None:
        """A hanging call is given up only with its partition; after a bad answer the text is asked about once more."""
        for call in asked:
            if fault == "hang" and not self._had_to_give_up(call):
                self._verdict.violation("paid_again", f"text {call.text[:8]} was given up after {_took_s(call):.0f} s")
        # The record may be read again at each of these, and its copy may exist twice.
        attempts = 2 + self._history.moves(asked[0].began_s, asked[-1].ended_s)
        attempts += len(
            [death for death in self._history.deaths if asked[0].began_s <= death.at_s <= asked[-1].ended_s]
        )
        if fault in _BAD_ANSWERS and len(asked) > _ASKS_FOR_A_GOOD_ANSWER * attempts:
            self._verdict.violation("paid_again", f"text {asked[0].text[:8]} was asked {len(asked)} times ({fault})")

    def _had_to_give_up(self, call: Call) -> bool:
        if self._history.moved_soon(call.ended_s - _LET_GO_AFTER_S, _LET_GO_AFTER_S + _LET_GO_BEFORE_S):
            return True
        near = (call.ended_s - _LET_GO_BEFORE_S, call.ended_s + _LET_GO_BEFORE_S)
        return any(near[0] <= death.at_s <= near[1] for death in self._deaths.get(call.caller, ()))


def _is_good(call: Call) -> bool:
    """Whether it was answered well, or would have been."""
    return call.fault in _HARMLESS or (call.fault == "hang" and call.end == "answered")


def _may_follow(loss: Death, again: Call) -> bool:
    """A worker that lives on remembers the answer and must not ask again itself."""
    return loss.at_s <= again.began_s and (loss.kind not in _LIVES_ON or loss.caller != again.caller)


def _took_s(call: Call) -> float:
    return call.ended_s - call.began_s


def _story(first: Call, again: Call, kept_s: Sequence[float]) -> str:
    kept = ", ".join(f"{at - first.began_s:+.2f}" for at in kept_s)
    return (
        f"text {first.text[:8]} by {first.caller} at {first.began_s:.2f} ({first.end} after {_took_s(first):.2f} s, "
        f"kept {kept}) and {again.began_s - first.began_s:.2f} s later by {again.caller} ({again.end})"
    )
