"""Says what is wrong: with the offsets at the crash, and with the outcome after the restart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.structs import ConsumerRecord

from agents.local.analyser import LocalInsights
from tests.crash.evidence import Evidence, Place
from tests.crash.workload import Item

#: What tells how an event came about and not what it says: a record that is read again is answered from the table.
CIRCUMSTANCES = frozenset({"outcome", "analysed_at", "prompt_tokens", "completion_tokens", "cost_usd_ticks"})


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls at the stand-in; `unkept` are those of before the crash whose answer no changelog has.

    Refusals are never kept: one whose record was sent home again after the crash is asked for by each copy.
    """

    distinct: int
    unkept: int
    in_all: int


class Judge:
    """For one run."""

    def __init__(self, items: Sequence[Item], insights: LocalInsights) -> None:
        self._insights = insights
        self._items = {item.value: item for item in items}

    def offsets(self, found: Evidence) -> list[str]:
        """Committed offsets that passed a record of which nothing durable has come."""
        inputs = found.records[found.topics.conversations] + found.records[found.topics.rehomed]
        committed = {(at.topic, at.partition): offset for at, offset in found.committed.items()}
        letters, rehomed = found.letters, found.rehomed
        return [
            f"{record.topic}/{record.partition}: committed past the unfinished {record.offset}"
            for record in inputs
            if record.offset < committed[record.topic, record.partition]
            and not (self._is_sent_home(record, rehomed) or self._has_ended(record, found, letters))
        ]

    def _is_sent_home(self, record: ConsumerRecord, rehomed: Mapping[Place, object]) -> bool:
        return (record.topic, record.partition, record.offset) in rehomed

    def _has_ended(self, record: ConsumerRecord, found: Evidence, letters: Mapping[Place, object]) -> bool:
        item = self._items[record.value]
        if item.is_dead:
            has_row = item.text is None or item.id in found.rows
            return has_row and any(letter.value == item.value for letter in found.records[found.topics.dead_letters])
        has_event = any(record.key == item.id.encode() for record in found.records[found.topics.insights])
        return item.id in found.rows and has_event

    def outcome(self, found: Evidence, calls: Calls) -> list[str]:
        """Everything that is not as it must be when all is done."""
        wrong = [*self._rows(found), *self._events(found), *self._letters(found), *self._places(found)]
        allowed = calls.distinct + calls.unkept + self._refusals_sent_again(found)
        if not calls.distinct <= calls.in_all <= allowed:
            wrong.append(f"calls: {calls}, {allowed} are allowed")
        return wrong

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
        """What the stand-in says of the text, by the columns that tell texts apart; nothing of those not analysed."""
        if not item.is_asked or item.is_dead:
            return {"sentiment": None, "summary": None}
        assert item.text is not None
        insight = self._insights.insight(item.text)
        return {"sentiment": insight.sentiment, "summary": insight.summary, "intent": insight.intent}

    def _events(self, found: Evidence) -> list[str]:
        wanted = {item.id for item in self._items.values() if not item.is_dead}
        copies = found.events
        told = [payloads[0]["id"] for payloads in copies.values()]
        wrong = [f"event missing: {id_}" for id_ in wanted - set(told)]
        wrong += [f"event invented: {id_}" for id_ in set(told) - wanted]
        wrong += [f"two event ids of one conversation: {id_}" for id_ in set(told) if told.count(id_) > 1]
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

    def _letters(self, found: Evidence) -> list[str]:
        letters = found.records[found.topics.dead_letters]
        dead = {item.value for item in self._items.values() if item.is_dead}
        wrong = [f"letter missing: {value!r}" for value in dead - {letter.value for letter in letters}]
        wrong += [f"letter invented: {letter.value!r}" for letter in letters if letter.value not in dead]
        return wrong + [
            f"letters of one value from two places: {place}"
            for place, copies in found.letters.items()
            if len({letter.value for letter in copies}) > 1 or place[0] != found.topics.conversations
        ]

    def _places(self, found: Evidence) -> list[str]:
        """Every row names the record that it came from, wherever that was worked on."""
        stands_at = {self._items[record.value].id: record for record in found.records[found.topics.conversations]}
        return [
            f"row of {id_} names another record"
            for id_, row in found.rows.items()
            if id_ in stands_at
            and (row["origin_topic"], row["origin_partition"], row["origin_offset"])
            != (stands_at[id_].topic, stands_at[id_].partition, stands_at[id_].offset)
        ]


def repeated(found: Evidence) -> tuple[int, frozenset[str]]:
    """How many events stand there more than once, and the fields in which the copies of any of them differ."""
    copies = [payloads for payloads in found.events.values() if len(payloads) > 1]
    pairs = [(payloads[0], payload) for payloads in copies for payload in payloads[1:]]
    differing = {name for one, other in pairs for name in {*one, *other} if one.get(name) != other.get(name)}
    return len(copies), frozenset(differing)


def _says(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in CIRCUMSTANCES}
