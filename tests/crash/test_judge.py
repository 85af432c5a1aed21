"""The judge of the crash points sees each single fault in evidence that is otherwise right."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import orjson
import pytest
from aiokafka import TopicPartition

from schemas.kafka import DEFAULT_TENANT
from tests.crash.evidence import Evidence
from tests.crash.judge import Calls, Judge
from tests.crash.workload import PARTITIONS, Item, workload
from tests.support.factories import NOON, an_answer
from tests.support.standin_answers import StandinAnswers
from tests.support.topics import TOPICS

INSIGHTS = StandinAnswers()
ITEMS = workload("run", random.Random(1))
GOOD = next(item for item in ITEMS if item.is_asked and not item.is_dead and not item.is_away)
REFUSED = next(item for item in ITEMS if item.is_asked and item.is_dead)
CALLS = Calls(distinct=19, unkept=2, in_all=21)


class Stored(NamedTuple):
    """The fields of a record that the judge reads."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def right_evidence() -> Evidence:
    """Everything done, once, and committed."""
    records: dict[str, list[Any]] = {topic: [] for topic in TOPICS.messages}
    rows, offsets = {}, [0] * PARTITIONS
    for item in ITEMS:
        place = (TOPICS.conversations, item.partition, offsets[item.partition])
        offsets[item.partition] += 1
        records[TOPICS.conversations].append(Stored(*place, item.id.encode(), item.value, []))
        if item.is_dead:
            records[TOPICS.dead_letters].append(Stored("", 0, 0, b"", item.value, _origin("dlq", place)))
        else:
            records[TOPICS.insights].append(_event(item, "analysed"))
        if item.text is not None:
            rows[item.id] = _row(item, place)
    committed = {TopicPartition(TOPICS.conversations, n): end for n, end in enumerate(offsets)}
    answer = Stored("", 0, 0, b"key:v1", msgspec.json.encode(an_answer()), [])
    return Evidence(TOPICS, records, [answer], rows, committed, {(b"key:v1", NOON)})  # type: ignore[arg-type, list-item]


def _origin(prefix: str, place: tuple[str, int, int]) -> list[tuple[str, bytes]]:
    named = zip(("topic", "partition", "offset"), place, strict=True)
    return [(f"{prefix}.{name}", str(value).encode()) for name, value in named]


def _event(item: Item, outcome: str, summary: str | None = None) -> Stored:
    payload: dict[str, Any] = {"id": item.id, "outcome": outcome}
    if item.is_asked:
        assert item.text is not None
        payload["insight"] = {"summary": summary or INSIGHTS.insight(item.text).summary}
    ce_id = f"{DEFAULT_TENANT}:{item.id}:2026".encode()
    return Stored("", 0, 0, item.id.encode(), orjson.dumps(payload), [("ce_id", ce_id)])


def _row(item: Item, place: tuple[str, int, int]) -> Mapping[str, Any]:
    row: dict[str, Any] = {"outcome": min(item.outcomes), "sentiment": None, "summary": None, "intent": None}
    if item.is_asked and not item.is_dead:
        assert item.text is not None
        insight = INSIGHTS.insight(item.text)
        row |= {"sentiment": insight.sentiment, "summary": insight.summary, "intent": insight.intent}
    return row | dict(zip(("origin_topic", "origin_partition", "origin_offset"), place, strict=True))


def test_right_evidence_is_right() -> None:
    """This includes a repeated event and dead letter, as a crash leaves them."""
    judge, found = Judge(ITEMS, INSIGHTS), right_evidence()
    found.records[TOPICS.insights].append(_event(GOOD, "cached"))
    found.records[TOPICS.dead_letters].append(found.records[TOPICS.dead_letters][0])
    assert judge.outcome(found, CALLS) == judge.offsets(found) == []


Spoiled = Any
BREAKS: dict[str, Callable[[Spoiled], object]] = {
    "row missing": lambda found: found.rows.pop(GOOD.id),
    "row invented": lambda found: found.rows.update(other=found.rows[GOOD.id]),
    "row of": lambda found: found.rows[GOOD.id].update(summary="of another text"),
    "names another record": lambda found: found.rows[GOOD.id].update(origin_offset=1_000),
    "event missing": lambda found: found.records[TOPICS.insights].pop(),
    "event invented": lambda found: found.records[TOPICS.insights].append(_event(REFUSED, "analysed")),
    "event diverges": lambda found: found.records[TOPICS.insights].append(_event(GOOD, "cached", "something else")),
    "call missing": lambda found: found.calls.clear(),
    "dead letter missing": lambda found: found.records[TOPICS.dead_letters].pop(),
    "dead letter invented": lambda found: found.records[TOPICS.dead_letters].append(
        found.records[TOPICS.dead_letters][0]._replace(value=GOOD.value)
    ),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_one_fault_is_reported(fault: str) -> None:
    """It is reported by name."""
    found = right_evidence()
    BREAKS[fault](found)
    assert [wrong for wrong in Judge(ITEMS, INSIGHTS).outcome(found, CALLS) if fault in wrong]


@pytest.mark.parametrize("in_all", [18, 22])
def test_too_few_and_too_many_calls_are_reported(in_all: int) -> None:
    """Fewer calls than texts would mean answers without a source."""
    [wrong] = Judge(ITEMS, INSIGHTS).outcome(right_evidence(), replace(CALLS, in_all=in_all))
    assert wrong.startswith("calls")


@pytest.mark.parametrize("lost", ["row", "event", "dead letter"])
def test_an_offset_past_an_unfinished_record_is_reported(lost: str) -> None:
    """Any part of the outcome may be missing."""
    judge, found = Judge(ITEMS, INSIGHTS), right_evidence()
    if lost == "row":
        del found.rows[GOOD.id]  # type: ignore[attr-defined]
    elif lost == "event":
        found.records[TOPICS.insights][:] = [r for r in found.records[TOPICS.insights] if r.key != GOOD.id.encode()]
    else:
        found.records[TOPICS.dead_letters].pop()
    assert [wrong for wrong in judge.offsets(found) if "unfinished" in wrong]
