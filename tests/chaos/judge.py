"""The judge: compares what was accepted with its outcome. Pure; runs when the faults are over."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor, inf
from typing import Any

import orjson

from schemas.dead_letter import DeadLetterReason
from schemas.insight import Insight
from schemas.kafka import DEFAULT_TENANT
from tests.chaos.commits import judge_commits, judge_offsets_at_end
from tests.chaos.evidence import DeadLetterRecord, Evidence, Place
from tests.chaos.oracle import Case, Kind, Oracle
from tests.chaos.repeated_calls import CallJudge, FaultHistory
from tests.chaos.verdict import Verdict
from tests.support.topics import TOPICS

_ANALYSED = ("analysed", "cached")
_DEAD_REASON = {Kind.REFUSED: DeadLetterReason.REFUSED, Kind.BROKEN: DeadLetterReason.UNDECODABLE}


@dataclass
class Posted:
    """Numbers of the cases. Confirmed ones must reach an outcome, unconfirmed ones only if they are in the topic."""

    confirmed: set[int] = field(default_factory=set)
    unconfirmed: set[int] = field(default_factory=set)


def judge(
    oracle: Oracle, posted: Posted, evidence: Evidence, faults: FaultHistory, *, everything_is_due: bool
) -> Verdict:
    """Judges all evidence so far. While texts hang at Grok, neither they nor the last offsets are due."""
    verdict = Verdict()
    cases = _Cases(oracle, posted, evidence, verdict)
    cases.judge_stored()
    for case in cases.due(everything_is_due):
        cases.judge_case(case)
    cases.judge_unknown()
    rows_ms = cases.rows_ms()
    cases.judge_keeping(rows_ms)
    judge_commits(evidence, rows_ms, verdict)
    if everything_is_due:
        judge_offsets_at_end(evidence, verdict)
    texts = cases.by_number.values()
    kept_s = {case.digest: [at / 1000 for at in evidence.kept.get(case.text_key, ())] for case in texts}
    CallJudge(kept_s, cases.digests_with_an_answer(), faults, verdict).judge(evidence.calls)
    verdict.figures["ids"] = len(posted.confirmed)
    verdict.figures["unconfirmed"] = len(posted.unconfirmed)
    verdict.figures["redelivered"] = _redelivered(evidence)
    verdict.figures["rebalances"] = max(0, len(evidence.generations) - 1)
    verdict.figures.update(Counter(row["outcome"] for row in evidence.rows))
    return verdict


class _Cases:
    """The evidence by case."""

    def __init__(self, oracle: Oracle, posted: Posted, evidence: Evidence, verdict: Verdict) -> None:
        self._oracle, self._posted, self._evidence, self._verdict = oracle, posted, evidence, verdict
        #: First place -> the case written there, and its value: the gateway encodes it in its own way.
        self._case_at: dict[Place, Case] = {}
        self._value_at: dict[Place, bytes | None] = {}
        self.by_number: dict[int, Case] = {}
        self._dead_letters: dict[int, list[DeadLetterRecord]] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        self._read_inputs()
        self._bad_answers = Counter(
            call.text for call in evidence.calls if call.end == "answered" and call.fault in ("bad_schema", "bad_json")
        )

    def judge_stored(self) -> None:
        """A confirmed record must be in the topic."""
        for number in self._posted.confirmed - self.by_number.keys():
            self._verdict.violation("missing", f"{self._oracle.case(number).id} was confirmed and is not in the topic")

    def due(self, hanging_are_due: bool) -> list[Case]:
        return [case for case in self.by_number.values() if hanging_are_due or case.kind is not Kind.HANGS]

    def rows_ms(self) -> dict[Place, float]:
        """Commit time of the row of each record that must have one; infinite where there is none."""
        rows_ms = {}
        for first, case in self._case_at.items():
            if case.kind is not Kind.BROKEN:
                row = self._rows.get(case.id)
                written_at = row["written_at"] if row is not None else None
                rows_ms[first] = inf if written_at is None else floor(written_at.timestamp() * 1000)
        return rows_ms

    def digests_with_an_answer(self) -> set[str]:
        """Digests of texts that have an answer."""
        answered = (case for case in self.by_number.values() if self._outcome(case) in _ANALYSED)
        return {case.digest for case in answered}

    def _outcome(self, case: Case) -> str | None:
        row = self._rows.get(case.id)
        return None if row is None else str(row["outcome"])

    def judge_case(self, case: Case) -> None:
        """A case ends with a row and an event, or with a dead letter and, where it has an ID, a row."""
        row = self._rows.get(case.id)
        if case.kind is Kind.BROKEN:
            self._judge_broken(case)
            return
        if row is None:
            self._verdict.violation("missing", f"{case.id} ({case.kind}) has no row")
        elif row["outcome"] == "dead":
            self._judge_dead(case, row)
        else:
            self._judge_living(case, row)

    def judge_unknown(self) -> None:
        """Rows, events and dead letters without a posted record, and duplicate rows."""
        for row in self._evidence.rows:
            at = Place(row["origin_topic"], row["origin_partition"], row["origin_offset"])
            case = self._case_at.get(at)
            if case is None or case.id != row["conversation_id"] or row["tenant"] != DEFAULT_TENANT:
                self._verdict.violation("invented", f"row {row['conversation_id']} from {at}")
        for conversation_id, events in self._evidence.events.items():
            for event in events:
                case = self._case_at.get(event.first)
                if case is None or case.id != conversation_id:
                    self._verdict.violation("invented", f"event {conversation_id} from {event.first}")
        for place in self._evidence.strange:
            self._verdict.violation("invented", f"a record at {place} that the service does not write")
        for first, dead_letters in self._evidence.dead_letters.items():
            if first not in self._value_at or any(dead.value != self._value_at[first] for dead in dead_letters):
                self._verdict.violation("invented", f"dead letter from {first}")
        for conversation_id, rows in Counter(row["conversation_id"] for row in self._evidence.rows).items():
            if rows > 1:
                self._verdict.violation("duplicate_rows", f"{conversation_id} has {rows} rows")

    def judge_keeping(self, rows_ms: Mapping[Place, float]) -> None:
        """An answer must be in the changelog before it is delivered: a crash in between would pay for it twice.

        Texts that may have died of bad answers first are left out: their death was delivered, not an answer.
        """
        for first, case in self._case_at.items():
            if self._outcome(case) in _ANALYSED and not self._is_unlucky(case):
                kept_ms = min(self._evidence.kept.get(case.text_key, ()), default=inf)
                delivered_ms = min(rows_ms[first], self._evidence.ended.get(first, inf))
                if kept_ms > delivered_ms:
                    self._verdict.violation("delivered_before_kept", f"{case.id} by {kept_ms - delivered_ms:g} ms")

    def _judge_broken(self, case: Case) -> None:
        if case.id in self._rows or case.id in self._evidence.events:
            self._verdict.violation("unbalanced", f"{case.id} (broken) has a row or an event")
        self._judge_dead_letter(case, DeadLetterReason.UNDECODABLE)

    def _judge_dead_letter(self, case: Case, reason: str) -> None:
        dead_letters = self._dead_letters.get(case.number, [])
        if not dead_letters:
            self._verdict.violation("missing", f"{case.id} ({case.kind}) has no dead letter")
        if any(dead.reason != reason for dead in dead_letters):
            self._verdict.violation("corrupted", f"{case.id} died of {dead_letters[0].reason} instead of {reason}")

    def _judge_dead(self, case: Case, row: Mapping[str, Any]) -> None:
        if case.id in self._evidence.events:
            self._verdict.violation("unbalanced", f"{case.id} ({case.kind}) died and has an event")
        unlucky = row["reason"] == DeadLetterReason.BAD_ANSWER and self._is_unlucky(case)
        expected = DeadLetterReason.BAD_ANSWER if unlucky else _DEAD_REASON.get(case.kind)
        if expected is None or row["reason"] != expected:
            self._verdict.violation("unbalanced", f"{case.id} ({case.kind}) died of {row['reason']}")
        else:
            self._judge_dead_letter(case, expected)

    def _is_unlucky(self, case: Case) -> bool:
        """Whether its text had two bad answers, the number that a text may die of."""
        return self._bad_answers[case.digest] >= 2

    def _judge_living(self, case: Case, row: Mapping[str, Any]) -> None:
        events = self._evidence.events.get(case.id, [])
        if not events:
            self._verdict.violation("unbalanced", f"{case.id} has a row and no event")
        if len({event.event_id for event in events}) > len({event.first for event in events}):
            self._verdict.violation("corrupted", f"the events of {case.id} cannot be distinguished by their ids")
        # After a crash, a text that died of bad answers may get a good one.
        unlucky = self._is_unlucky(case)
        dead_letters = self._dead_letters.get(case.number, [])
        if any(not unlucky or dead.reason != DeadLetterReason.BAD_ANSWER for dead in dead_letters):
            self._verdict.violation("unbalanced", f"{case.id} has a row and a dead letter")
        self._verdict.figures["two_outcomes_after_a_crash"] += bool(dead_letters)
        allowed = ("filtered",) if case.kind is Kind.FILTERED else _ANALYSED
        found = [(row["outcome"], row["text_key"], _insight_of_row(row))]
        found += [(e.result["outcome"], e.result["text_key"], _insight_of(e.result.get("insight"))) for e in events]
        expected = None if case.kind is Kind.FILTERED else self._oracle.insight(case)
        for outcome, text_key, insight in found:
            if outcome not in allowed or text_key != case.text_key or insight != expected:
                self._verdict.violation("corrupted", f"{case.id} ({case.kind}) ended as {outcome}")
                return

    def _read_inputs(self) -> None:
        for (topic, _), entries in self._evidence.inputs.items():
            if topic != TOPICS.conversations:
                continue
            for entry in entries:
                number = self._oracle.number_of(_id_of(entry.value))
                if number is None:
                    self._verdict.violation("invented", f"a record at {entry.first} that was not posted")
                    continue
                self._value_at[entry.first] = entry.value
                self.by_number[number] = self._case_at[entry.first] = self._oracle.case(number)
        for first, dead_letters in self._evidence.dead_letters.items():
            if first in self._case_at:
                self._dead_letters.setdefault(self._case_at[first].number, []).extend(dead_letters)
        self._rows = {row["conversation_id"]: row for row in self._evidence.rows}


def _id_of(value: bytes | None) -> str:
    try:
        return str(orjson.loads(value or b"")["id"])
    except orjson.JSONDecodeError:
        return (value or b"").decode().removeprefix("{")  # as the oracle breaks them


def _insight_of_row(row: Mapping[str, Any]) -> Insight | None:
    return _insight_of({name: row[name] for name in Insight.__struct_fields__ if name != "extra"})


def _insight_of(fields: Mapping[str, Any] | None) -> Insight | None:
    if fields is None or fields["sentiment"] is None:
        return None
    return Insight(**{**fields, "topics": tuple(fields["topics"])})


def _redelivered(evidence: Evidence) -> int:
    """Records that were worked on again: they left several events, copies or dead letters."""
    events = sum(len(events) - len({event.first for event in events}) for events in evidence.events.values())
    copies = sum(len(times) - 1 for times in evidence.copies.values())
    return events + copies + sum(len(found) - 1 for found in evidence.dead_letters.values())
