"""Whether a text was paid for again without a reason: Grok's own journal against what happened to the workers. Pure."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.chaos.evidence import Call
from tests.chaos.verdict import Verdict

#: Faults after which the answer arrives all the same.
_HARMLESS = (None, "slow_body", "no_usage")
_BAD_ANSWERS = ("bad_schema", "bad_json")
#: How long an answer may take to the changelog while brokers take writes; the machine may be busy.
_KEPT_WITHIN_S = 5.0
#: Who was given up keeps what it remembers once it is in the group again: the first to come back forms a generation of
#: its own, and lets the others in when it has noticed them and drained, which took 10 s on two cores.
_IN_THE_GROUP_AGAIN_WITHIN_S = 20.0
#: A worker that has to give partitions away lets go of what hangs some seconds before the rebalance is over.
_LET_GO_BEFORE_S, _LET_GO_AFTER_S = 20.0, 5.0
#: A request stands in the stand-in's socket for a while before it is read and counts as begun, maybe after its worker
#: was killed or frozen. Nobody calls in that worker's name so soon after: a new life takes longer to begin.
_READ_LATE_S = 1.0
#: A worker that is let go on sends what it was just handing to the socket: no more than one request, and at once.
_HALF_SENT_S = 0.05
_ASKS_FOR_A_GOOD_ANSWER = 2
#: Ways of losing a call, but not what its worker remembers.
_LIVES_ON = ("given_up", "moved")


class Death(NamedTuple):
    """What took a worker's calls away: killed, frozen (past its session), stopped, given_up by the group because the
    brokers were frozen, or, of a single call, its partition moved. One that is stopped is told to at `at_s`, and keeps
    answers until it ends, after `took_s`."""

    caller: str
    at_s: float
    kind: str
    took_s: float = 0.0

    @property
    def over_s(self) -> float:
        """From then on it keeps nothing."""
        return self.at_s + self.took_s


class Freeze(NamedTuple):
    """A worker stood still; at the end it was let go on."""

    caller: str
    from_s: float
    to_s: float


class Outage(NamedTuple):
    """Brokers did not take writes, or not all of them."""

    from_s: float
    to_s: float


@dataclass(frozen=True)
class Fates:
    """`moves_s` are the times at which the group had a new generation, in order."""

    deaths: Sequence[Death]
    outages: Sequence[Outage]
    moves_s: Sequence[float]
    freezes: Sequence[Freeze] = ()

    def is_outage(self, from_s: float, to_s: float) -> bool:
        """Whether brokers were away at any time in between."""
        return any(outage.from_s <= to_s and from_s <= outage.to_s for outage in self.outages)

    def moves(self, from_s: float, to_s: float) -> int:
        """Rebalances in between."""
        return bisect_right(self.moves_s, to_s) - bisect_left(self.moves_s, from_s)

    def moved_soon(self, from_s: float, within_s: float) -> bool:
        """Whether a rebalance ended in time; one that brokers interrupt by going away ends when they are back."""
        until_s = from_s + within_s
        until_s = max([until_s, *(outage.to_s for outage in self.outages if outage.from_s <= until_s)])
        return self.moves(from_s, until_s) > 0


class Cashier:
    """`kept_s` has, for each text's digest, the times at which its answer was written to the changelog; `ended` the
    digests of all texts that have a row by an answer."""

    def __init__(
        self, kept_s: Mapping[str, Sequence[float]], ended: Collection[str], fates: Fates, verdict: Verdict
    ) -> None:
        self._kept_s, self._ended, self._fates, self._verdict = kept_s, ended, fates, verdict
        self._deaths: dict[str, list[Death]] = defaultdict(list)
        for death in sorted(fates.deaths, key=lambda death: death.at_s):
            self._deaths[death.caller].append(death)
        #: Each of them may still excuse one call.
        self._freezes = list(fates.freezes)

    def judge(self, calls: Iterable[Call]) -> None:
        """Calls that the stand-in spoiled have to be followed by another; any other text has one call, but for those
        that were cut off: under way, their answer not kept, when their worker was taken away."""
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
            self._verdict.violation("unbalanced", f"text {text[:8]} has a row and nobody was asked")
        figures = self._verdict.figures
        figures["calls"], figures["distinct_texts"] = sum(map(len, good.values())), len(self._ended)
        figures["spoiled"] = sum(map(len, spoiled.values()))
        figures["cut_off"] += figures["half_sent"]
        if figures["calls"] > figures["distinct_texts"] + figures["cut_off"] and not self._verdict.counts["paid_again"]:
            self._verdict.violation("paid_again", f"{figures['calls']} calls, {figures['cut_off']} of them cut off")

    def _judge_text(self, text: str, asked: Sequence[Call]) -> None:
        kept_s = self._kept_s.get(text, ())
        losses = [self._losses(call, kept_s) for call in asked]
        # One that was lost with its worker may be followed by bad answers only, of which the text dies.
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
        """Its worker was frozen between its last look at the lease and the socket, which no client can rule out."""
        for freeze in self._freezes:
            if freeze.caller == call.caller and 0 <= call.began_s - freeze.to_s <= _HALF_SENT_S:
                self._freezes.remove(freeze)
                self._verdict.figures["half_sent"] += 1
                return True
        return False

    def _losses(self, call: Call, kept_s: Sequence[float]) -> list[Death]:
        """How it was lost; a worker that was given up may have died, too, before it could keep what it remembered."""
        lost = [death for death in self._deaths.get(call.caller, ()) if self._is_lost(call, death, kept_s)]
        given_up = next((death for death in lost if death.kind == "given_up"), None)
        died = next((death for death in lost if death.kind != "given_up"), None)
        if given_up and died and self._had_time_to_keep(given_up.at_s, died.at_s):
            died = None
        if not lost and call.end == "answered" and self._moved_unkept(call, kept_s):
            return [Death(call.caller, call.ended_s, "moved")]
        return [death for death in (given_up, died) if death]

    def _had_time_to_keep(self, given_up_s: float, death_s: float) -> bool:
        """Whether the group, and the worker with it, was whole again some time before its death."""
        return self._fates.moves(given_up_s, death_s - _IN_THE_GROUP_AGAIN_WITHIN_S) > 0

    def _moved_unkept(self, call: Call, kept_s: Sequence[float]) -> bool:
        """The partition moved while no broker took the answer: whoever has it now cannot know of it."""
        until_s = call.ended_s + _KEPT_WITHIN_S
        return (
            self._fates.is_outage(call.ended_s, until_s)
            and self._fates.moved_soon(call.ended_s, _LET_GO_BEFORE_S)
            and not any(call.began_s <= kept <= until_s for kept in kept_s)
        )

    def _is_lost(self, call: Call, death: Death, kept_s: Sequence[float]) -> bool:
        """A worker that is stopped in order has the time to end its calls, as long as it can keep their answers."""
        late_s = _READ_LATE_S if death.kind in ("killed", "frozen") else 0
        if death.at_s < call.began_s - late_s or any(call.began_s <= kept <= death.over_s for kept in kept_s):
            return False
        could_not_keep = self._fates.is_outage(call.ended_s, death.over_s)
        if death.kind == "stopped":
            return could_not_keep
        return could_not_keep or death.at_s <= call.ended_s + _KEPT_WITHIN_S

    def _judge_spoiled(self, fault: str, asked: Sequence[Call]) -> None:
        """What hangs is let go only with the partition; a bad answer is asked for once more."""
        for call in asked:
            if fault == "hang" and not self._had_to_let_go(call):
                self._verdict.violation("paid_again", f"text {call.text[:8]} was given up after {_took_s(call):.0f} s")
        # The record may have been begun anew at each of these, and its copy sent home twice.
        attempts = 2 + self._fates.moves(asked[0].began_s, asked[-1].ended_s)
        attempts += len([death for death in self._fates.deaths if asked[0].began_s <= death.at_s <= asked[-1].ended_s])
        if fault in _BAD_ANSWERS and len(asked) > _ASKS_FOR_A_GOOD_ANSWER * attempts:
            self._verdict.violation("paid_again", f"text {asked[0].text[:8]} was asked {len(asked)} times ({fault})")

    def _had_to_let_go(self, call: Call) -> bool:
        if self._fates.moved_soon(call.ended_s - _LET_GO_AFTER_S, _LET_GO_AFTER_S + _LET_GO_BEFORE_S):
            return True
        near = (call.ended_s - _LET_GO_BEFORE_S, call.ended_s + _LET_GO_BEFORE_S)
        return any(near[0] <= death.at_s <= near[1] for death in self._deaths.get(call.caller, ()))


def _is_good(call: Call) -> bool:
    """It was answered well, or would have been."""
    return call.fault in _HARMLESS or (call.fault == "hang" and call.end == "answered")


def _may_follow(loss: Death, again: Call) -> bool:
    """A worker that lives on remembers the answer, and does not ask again itself."""
    return loss.at_s <= again.began_s and (loss.kind not in _LIVES_ON or loss.caller != again.caller)


def _took_s(call: Call) -> float:
    return call.ended_s - call.began_s


def _story(first: Call, again: Call, kept_s: Sequence[float]) -> str:
    kept = ", ".join(f"{at - first.began_s:+.2f}" for at in kept_s)
    return (
        f"text {first.text[:8]} by {first.caller} at {first.began_s:.2f} ({first.end} after {_took_s(first):.2f} s, "
        f"kept {kept}) and {again.began_s - first.began_s:.2f} s later by {again.caller} ({again.end})"
    )
