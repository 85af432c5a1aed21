"""The evidence of a run, seen from outside: topics, the group's commits, rows, and the stand-in's journal of calls.

Pure: `tests.chaos.witness` reads it, this module holds it.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka.structs import ConsumerRecord

from agents.decode import REHOMED_OFFSET, REHOMED_PARTITION, REHOMED_TOPIC
from schemas.kafka import Header
from tests.chaos.group_log import Commit, read_commit, read_generation
from tests.support.topics import TOPICS

GROUP_TOPIC = "__consumer_offsets"


class Place(NamedTuple):
    """The position of a record in the log."""

    topic: str
    partition: int
    offset: int


class Input(NamedTuple):
    """A record that must reach an outcome; `first` is its place in `conversations`, also for its rehomed copy."""

    offset: int
    first: Place
    value: bytes | None


class Event(NamedTuple):
    """An event in `insights`; `event_id` is its ce_id."""

    first: Place
    event_id: str
    result: dict[str, Any]


class DeadLetterRecord(NamedTuple):
    """A record of the dead-letter topic."""

    reason: str
    value: bytes | None


class Call(NamedTuple):
    """One line of the stand-in's journal."""

    text: str
    caller: str
    began_s: float
    ended_s: float
    end: str
    fault: str | None


@dataclass
class Evidence:
    """Grows with each record that is absorbed; every list is in the order of its log."""

    inputs: dict[tuple[str, int], list[Input]] = field(default_factory=lambda: defaultdict(list))
    commits: list[Commit] = field(default_factory=list)
    #: Generation of the group -> when the group first recorded it.
    generations: dict[int, int] = field(default_factory=dict)
    #: Records that the service cannot have written.
    strange: list[Place] = field(default_factory=list)
    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    dead_letters: dict[Place, list[DeadLetterRecord]] = field(default_factory=lambda: defaultdict(list))
    #: First place -> times at which its rehomed copies were written.
    copies: dict[Place, list[int]] = field(default_factory=lambda: defaultdict(list))
    #: Text key -> times at which its answer was written to the changelog.
    kept: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    #: First place -> the time of its first event or dead letter.
    ended: dict[Place, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def absorb(self, record: ConsumerRecord) -> None:
        """Adds a record of any of the topics."""
        try:
            self._sort(record)
        except (AttributeError, KeyError, ValueError, TypeError):  # a header or key is missing or malformed
            self.strange.append(Place(record.topic, record.partition, record.offset))

    def _sort(self, record: ConsumerRecord) -> None:
        match record.topic:
            case TOPICS.conversations:
                self._input(record, Place(record.topic, record.partition, record.offset))
            case TOPICS.rehomed:
                first = _first_place(dict(record.headers))
                self.copies[first].append(record.timestamp)
                self._input(record, first)
            case TOPICS.insights:
                self._event(record)
            case TOPICS.dead_letters:
                self._dead_letter(record)
            case _ if record.topic == TOPICS.answers_changelog:
                self.kept[record.key.decode().partition(":")[0]].append(record.timestamp)
            case _:
                self._group_record(record)

    def absorb_journal(self, line: bytes) -> None:
        """Adds a line of the stand-in's journal."""
        self.calls.append(Call(**json.loads(line)))

    def _input(self, record: ConsumerRecord, first: Place) -> None:
        self.inputs[record.topic, record.partition].append(Input(record.offset, first, record.value))

    def _event(self, record: ConsumerRecord) -> None:
        headers = dict(record.headers)
        topic, partition, offset = headers[Header.SOURCE].decode().strip("/").split("/")
        first = Place(topic, int(partition), int(offset))
        event = Event(first, headers[Header.ID].decode(), json.loads(record.value))
        self.events[record.key.decode()].append(event)
        self._ends(first, record.timestamp)

    def _dead_letter(self, record: ConsumerRecord) -> None:
        headers = dict(record.headers)
        first = Place(headers["dlq.topic"].decode(), int(headers["dlq.partition"]), int(headers["dlq.offset"]))
        self.dead_letters[first].append(DeadLetterRecord(headers["dlq.reason"].decode(), record.value))
        self._ends(first, record.timestamp)

    def _ends(self, first: Place, at_ms: int) -> None:
        self.ended[first] = min(at_ms, self.ended.get(first, at_ms))

    def _group_record(self, record: ConsumerRecord) -> None:
        commit = read_commit(record.key, record.value, record.timestamp)
        if commit is not None:
            self.commits.append(commit)
        generation = read_generation(record.key, record.value)
        if generation is not None:
            self.generations.setdefault(generation, record.timestamp)


def _first_place(headers: dict[str, bytes]) -> Place:
    return Place(headers[REHOMED_TOPIC].decode(), int(headers[REHOMED_PARTITION]), int(headers[REHOMED_OFFSET]))
