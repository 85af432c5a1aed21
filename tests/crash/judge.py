"""Checks the offsets at the crash, and the outcomes after the restart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.structs import ConsumerRecord

from tests.crash.evidence import Evidence
from tests.crash.workload import Item
from tests.support.standin_answers import StandinAnswers

#: Fields in which copies of an event may differ: a record that is read again is answered from the table.
CIRCUMSTANCES = frozenset({"outcome", "analysed_at", "prompt_tokens", "completion_tokens", "cost_usd_ticks"})


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls at the stand-in; `unkept` are those before the crash whose answer is not in the changelog.

    Refusals are never kept: each copy of a record that was rehomed again after the crash asks once more.
    """

    distinct: int
    unkept: int
    in_all: int


class Judge:
    """Judges one run."""

    def __init__(self, items: Sequence[Item], insights: StandinAnswers) -> None:
        self._insights = insights
        self._items = {item.value: item for item in items}

    def offsets(self, found: Evidence) -> list[str]:
        """Returns the committed offsets that passed a record without a durable outcome."""
        inputs = found.records[found.topics.conversations] + found.records[found.topics.rehomed]
        committed = {(at.topic, at.partition): offset for at, offset in found.committed.items()}
        rehomed = found.rehomed
        return [
            f"{record.topic}/{record.partition}: committed past the unfinished {record.offset}"
            for record in inputs
            if record.offset < committed[record.topic, record.partition]
            and not ((record.topic, record.partition, record.offset) in rehomed or self._has_ended(record, found))
        ]

    def _has_ended(self, record: ConsumerRecord, found: Evidence) -> bool:
        item = self._items[record.value]
        if item.is_dead:
            has_row = item.text is None or item.id in found.rows
            return has_row and any(dead.value == item.value for dead in found.records[found.topics.dead_letters])
        has_event = any(record.key == item.id.encode() for record in found.records[found.topics.insights])
        return item.id in found.rows and has_event

    def outcome(self, found: Evidence, calls: Calls) -> list[str]:
        """Returns everything that is wrong once all work is done."""
        wrong = [*self._rows(found), *self._events(found), *self._dead_letters(found), *self._places(found)]
        allowed = calls.distinct + calls.unkept + self._refusals_sent_again(found)
        if not calls.distinct <= calls.in_all <= allowed:
            wrong.append(f"calls: {calls}, {allowed} are allowed")
        return wrong + [f"call missing: of the answer {key!r}" for key, _ in found.answers - found.calls]

    def _refusals_sent_again(self, found: Evidence) -> int:
        return sum(len(copies) - 1 for copies in found.rehomed.values() if self._items[copies[0].value].is_dead)

    def _rows(self, found: Evidence) -> list[str]:
        wanted = {item.id: item for item in self._items.values() if item.text is not None}
        wrong = [f"row missing: {id_}" for id_ in wanted.keys() - found.rows.keys()]
        wrong += [f"row invented: {id_}" for id_ in found.rows.keys() - wanted.keys()]
        for id_ in wanted.keys() & found.rows.keys():
            item, row = wanted[id_], found.rows[id_]
            if row["outcome"] not in item.outcomes:
                wrong.append(f"row of {id_}: {row['outcome']}")
            wrong += [f"row of {id_}: {name}" for name, value in self._insight(item).items() if row[name] != value]
        return wrong

    def _insight(self, item: Item) -> dict[str, Any]:
        """Expected columns of the stand-in's answer; None for texts that are not analysed."""
        if not item.is_asked or item.is_dead:
            return {"sentiment": None, "summary": None}
        assert item.text is not None
        insight = self._insights.insight(item.text)
        return {"sentiment": insight.sentiment, "summary": insight.summary, "intent": insight.intent}

    def _events(self, found: Evidence) -> list[str]:
        wanted = {item.id for item in self._items.values() if not item.is_dead}
        copies = found.events
        ids = [payloads[0]["id"] for payloads in copies.values()]
        wrong = [f"event missing: {id_}" for id_ in wanted - set(ids)]
        wrong += [f"event invented: {id_}" for id_ in set(ids) - wanted]
        wrong += [f"two event ids of one conversation: {id_}" for id_ in set(ids) if ids.count(id_) > 1]
        wrong += [
            f"event diverges: {ce_id}"
            for ce_id, payloads in copies.items()
            if any(_says(payload) != _says(payloads[0]) for payload in payloads)
        ]
        rows = [(payloads[0], found.rows.get(payloads[0]["id"])) for payloads in copies.values()]
        return wrong + [
            f"event is not its row: {payload['id']}"
            for payload, row in rows
            if row is not None and payload.get("insight", {}).get("summary") != row["summary"]
        ]

    def _dead_letters(self, found: Evidence) -> list[str]:
        dead_letters = found.records[found.topics.dead_letters]
        dead = {item.value for item in self._items.values() if item.is_dead}
        wrong = [f"dead letter missing: {value!r}" for value in dead - {record.value for record in dead_letters}]
        wrong += [f"dead letter invented: {record.value!r}" for record in dead_letters if record.value not in dead]
        return wrong + [
            f"dead letters of one value from two places: {place}"
            for place, copies in found.dead_letters.items()
            if len({record.value for record in copies}) > 1 or place[0] != found.topics.conversations
        ]

    def _places(self, found: Evidence) -> list[str]:
        """Checks that every row names the record that it came from, wherever that was processed."""
        first_places = {self._items[record.value].id: record for record in found.records[found.topics.conversations]}
        return [
            f"row of {id_} names another record"
            for id_, row in found.rows.items()
            if id_ in first_places
            and (row["origin_topic"], row["origin_partition"], row["origin_offset"])
            != (first_places[id_].topic, first_places[id_].partition, first_places[id_].offset)
        ]


def repeated(found: Evidence) -> tuple[int, frozenset[str]]:
    """The number of repeated events, and the fields in which their copies differ."""
    copies = [payloads for payloads in found.events.values() if len(payloads) > 1]
    pairs = [(payloads[0], payload) for payloads in copies for payload in payloads[1:]]
    differing = {name for one, other in pairs for name in {*one, *other} if one.get(name) != other.get(name)}
    return len(copies), frozenset(differing)


def _says(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in CIRCUMSTANCES}
