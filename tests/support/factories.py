"""Records, jobs, answers and results for tests, each with sensible values that a test overrides by name."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from agents.decode import Job, decode
from agents.text_key import owner_partition, text_key
from schemas.call import PaidCall
from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.insight import Answer, Insight, Usage
from schemas.kafka import DEFAULT_TENANT, Origin
from schemas.outcome import Dead
from schemas.result import ConversationResult
from streams.worker.offsets import Tracker
from tests.support.topics import TOPICS

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
#: The time stamp of records.
WRITTEN_AT_MS = 1_770_000_000_000
WRITTEN_AT = datetime.fromtimestamp(WRITTEN_AT_MS / 1000, UTC)
PARTITIONS = 8
MODEL = "some-model"
PARCEL = "where is my parcel"
UNDECODABLE = Dead(DeadLetterReason.UNDECODABLE, "not JSON")


def value_of(text: str = PARCEL, **fields: object) -> bytes:
    """Returns the value of a record whose conversation has that text."""
    return json.dumps({"id": "c-1", "text": text, **fields}).encode()


A_VALUE = value_of()


def owner_of(text: str, partitions: int = PARTITIONS) -> int:
    """Returns the partition that owns the text."""
    return owner_partition(text_key(DEFAULT_TENANT, text).encode(), partitions)


def a_record(
    value: bytes | None = A_VALUE,
    *,
    topic: str = TOPICS.conversations,
    partition: int = 0,
    offset: int = 42,
    key: bytes | None = b"key",
    headers: Sequence[tuple[str, bytes]] = (),
    timestamp: int = WRITTEN_AT_MS,
) -> ConsumerRecord:
    """Returns a record as aiokafka delivers it."""
    size = len(value or b"")
    return ConsumerRecord(topic, partition, offset, timestamp, 0, key, value, None, 0, size, tuple(headers))


def a_tracker(partition: int = 0, start: int = 0, topic: str = TOPICS.conversations) -> Tracker:
    """Returns the tracker of an assignment that starts at `start`."""
    return Tracker(TopicPartition(topic, partition), start)


def a_job(record: ConsumerRecord | None = None, *, result: ConversationResult | None = None) -> Job:
    """Returns a decoded job with that result, the only one of its tracker."""
    record = record or a_record()
    tracker = a_tracker(record.partition, record.offset, record.topic)
    tracker.admit([record.offset])
    job = Job(tracker, record, was_rehomed=record.topic == TOPICS.rehomed)
    decode(job)
    if result is not None:
        job.result = result
    return job


def result_jobs(*results: ConversationResult) -> list[Job]:
    """One job for each result."""
    return [a_job(result=result) for result in results]


def a_dead_job(record: ConsumerRecord, outcome: Dead = UNDECODABLE) -> Job:
    """Returns a job that died before it was decoded."""
    job = Job(a_tracker(record.partition, record.offset, record.topic), record, was_rehomed=False)
    job.outcome = outcome
    return job


def an_insight(**fields: object) -> Insight:
    """Returns any valid insight."""
    values: dict[str, object] = {
        "sentiment": "negative",
        "sentiment_score": -0.5,
        "topics": ("refund", "billing"),
        "intent": "refund_request",
        "urgency": "high",
        "summary": "Charged twice, wants the money back.",
        "action_needed": True,
        "confidence": 0.9,
        "language": "en",
    }
    return Insight(**{**values, **fields})  # type: ignore[arg-type]


def an_answer(analysed_at: datetime = NOON, **fields: object) -> Answer:
    """Returns any valid answer; `fields` are those of its insight."""
    return Answer(insight=an_insight(**fields), usage=Usage(100, 20, 5_000), model=MODEL, analysed_at=analysed_at)


def a_result(**fields: object) -> ConversationResult:
    """Returns the result of an analysed conversation."""
    values: dict[str, object] = {
        "tenant": DEFAULT_TENANT,
        "id": "c-1",
        "outcome": "analysed",
        "occurred_at": NOON,
        "received_at": NOON,
        "analysed_at": NOON,
        "origin": Origin(TOPICS.conversations, 1, 2),
        "insight": an_insight(extra={"a": [1, "b"]}),
        "text_key": "a text",
    }
    return ConversationResult(**{**values, **fields})  # type: ignore[arg-type]


def a_call(**fields: object) -> PaidCall:
    """Returns a call that was answered."""
    values: dict[str, object] = {
        "tenant": DEFAULT_TENANT,
        "text_key": "a text",
        "analysis_version": "v1",
        "ended_at": NOON,
        "conversation_id": "c-1",
        "outcome": "answered",
        "model": MODEL,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cost_usd_ticks": 5_000,
    }
    return PaidCall(**{**values, **fields})  # type: ignore[arg-type]


def a_dead_letter(**fields: object) -> DeadLetter:
    """Returns the dead letter of a text that the provider refused."""
    values: dict[str, object] = {
        "key": b"key",
        "value": value_of(),
        "headers": [],
        "reason": DeadLetterReason.REFUSED,
        "detail": "the provider refused",
        "origin": Origin(TOPICS.conversations, 1, 2),
        "received_at": NOON,
        "at": NOON,
    }
    return DeadLetter(**{**values, **fields})  # type: ignore[arg-type]
