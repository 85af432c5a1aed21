"""Evidence of a calm run, made by hand; a test of the judge then spoils it in one place."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from aiokafka.structs import ConsumerRecord

from schemas.insight import Insight
from schemas.kafka import DEFAULT_TENANT, Header
from tests.chaos.evidence import GROUP_TOPIC, Call, Evidence
from tests.chaos.judge import Posted
from tests.chaos.oracle import Case, Kind, Oracle
from tests.support.topics import TOPICS

CALLER = "aaaaaaaa"
#: Milliseconds between one step of a case and the next; all steps of a case come after those of the case before it.
STEP_MS = 400
SEED = 7


class Scene:
    """The first `count` cases of an oracle, each taken through all steps by one worker, one after the other."""

    def __init__(self, count: int = 40) -> None:
        self.oracle = Oracle(SEED)
        self.posted = Posted(confirmed=set(range(count)))
        self.evidence = Evidence()
        self._now_ms = 1_000_000
        self._offsets: dict[str, int] = {}
        self._known: set[str] = set()
        for number in range(count):
            self._take_through(self.oracle.case(number))

    def case(self, kind: Kind) -> Case:
        """The first case of that kind."""
        return next(case for number in sorted(self.posted.confirmed) if (case := self.oracle.case(number)).kind is kind)

    def row(self, case: Case) -> dict[str, Any]:
        """The row of a case."""
        return next(row for row in self.evidence.rows if row["conversation_id"] == case.id)

    def tick(self) -> int:
        """Advances to the next moment, in milliseconds, and returns it."""
        self._now_ms += STEP_MS
        return self._now_ms

    def absorb(
        self, topic: str, key: bytes | None, value: bytes | None, headers: dict[str, str] | None = None
    ) -> ConsumerRecord:
        """Adds a record at the next moment and the next offset."""
        offset = self._offsets[topic] = self._offsets.get(topic, -1) + 1
        pairs = [(name, text.encode()) for name, text in (headers or {}).items()]
        record = ConsumerRecord(topic, 0, offset, self.tick(), 0, key, value, None, 0, 0, tuple(pairs))
        self.evidence.absorb(record)
        return record

    def commit(self, offset: int) -> None:
        """The group commits an offset of `conversations`."""
        key = b"\x00\x01" + _string(TOPICS.consumer_group) + _string(TOPICS.conversations) + (0).to_bytes(4, "big")
        self.absorb(GROUP_TOPIC, key, b"\x00\x03" + offset.to_bytes(8, "big"))

    def call(self, case: Case, caller: str = CALLER, end: str = "answered", fault: str | None = None) -> Call:
        """Adds a call that begins and ends at the next two moments."""
        call = Call(case.digest, caller, self.tick() / 1000, self.tick() / 1000, end, fault)
        self.evidence.calls.append(call)
        return call

    def keep(self, case: Case) -> None:
        """Adds the case's answer to the changelog."""
        self.absorb(TOPICS.answers_changelog, f"{case.text_key}:version".encode(), b"{}")

    def event(self, case: Case, offset: int, outcome: str, insight: Insight | None) -> None:
        """Adds the case's event."""
        result: dict[str, Any] = {"outcome": outcome, "text_key": case.text_key}
        if insight is not None:
            result["insight"] = insight
        headers = {Header.SOURCE: f"/{TOPICS.conversations}/0/{offset}", Header.ID: f"{DEFAULT_TENANT}:{case.id}"}
        self.absorb(TOPICS.insights, case.id.encode(), msgspec.json.encode(result), headers)

    def _take_through(self, case: Case) -> None:
        offset = self.absorb(TOPICS.conversations, case.id.encode(), case.value).offset
        if case.kind in (Kind.BROKEN, Kind.REFUSED):
            self._take_to_death(case, offset)
        else:
            self._take_to_life(case, offset)
        self.commit(offset + 1)

    def _take_to_life(self, case: Case, offset: int) -> None:
        insight = None if case.kind is Kind.FILTERED else self.oracle.insight(case)
        outcome = "filtered" if insight is None else "cached" if case.text in self._known else "analysed"
        if outcome == "analysed":
            self.call(case)
            self.keep(case)
            self._known.add(case.text)
        self._add_row(case, offset, outcome, insight)
        self.event(case, offset, outcome, insight)

    def take_to_death(self, case: Case, reason: str) -> None:
        """Takes a case of any kind to its death, with a row."""
        offset = self.absorb(TOPICS.conversations, case.id.encode(), case.value).offset
        self._add_row(case, offset, "dead", None, reason)
        self.dead_letter(case, offset, reason)
        self.commit(offset + 1)

    def _take_to_death(self, case: Case, offset: int) -> None:
        reason = "undecodable" if case.kind is Kind.BROKEN else "refused"
        if case.kind is Kind.REFUSED:
            self.call(case, end="failed", fault="violation_403")
            self._add_row(case, offset, "dead", None, reason)
        self.dead_letter(case, offset, reason)

    def dead_letter(self, case: Case, offset: int, reason: str) -> None:
        """Adds the case's dead letter."""
        place = {"dlq.topic": TOPICS.conversations, "dlq.partition": "0", "dlq.offset": str(offset)}
        self.absorb(TOPICS.dead_letters, case.id.encode(), case.value, {**place, "dlq.reason": reason})

    def _add_row(
        self, case: Case, offset: int, outcome: str, insight: Insight | None, reason: str | None = None
    ) -> None:
        fields = {name: getattr(insight, name, None) for name in Insight.__struct_fields__ if name != "extra"}
        place = {"origin_topic": TOPICS.conversations, "origin_partition": 0, "origin_offset": offset}
        ends = {"tenant": DEFAULT_TENANT, "conversation_id": case.id, "outcome": outcome, "reason": reason}
        written = {"written_at": datetime.fromtimestamp(self.tick() / 1000, UTC)}
        self.evidence.rows.append({**ends, "text_key": case.text_key, **fields, **place, **written})


def _string(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()
