"""Dead letters arrive in the topic `conversations.dlq` with the original record and the reason."""

from collections.abc import Sequence

import pytest
from aiokafka.structs import ConsumerRecord

from agents.decode import Job, Tracker, decode
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Unprocessable
from schemas.outcome import Dead
from streams.kafka.producer import ConfirmedProducer
from streams.local.tansu import Tansu
from streams.sinks.dead_letters import DeadLetterSink
from tests.fakes.analysis import NOON
from tests.support.topics import TOPICS
from tests.topic_log import records_of


class NoTracker(Tracker):
    """For jobs that are never finished."""

    partition = 1
    is_revoked = False

    def admit(self, offsets: Sequence[int]) -> None:
        raise NotImplementedError

    def finish(self, offset: int) -> None:
        raise NotImplementedError


def dead_job(
    value: bytes | None = b"not json \xff",
    *,
    key: bytes | None = b"key",
    headers: Sequence[tuple[str, bytes | None]] = (("a", b"\xff"), ("a", b"again")),
    detail: str = "not JSON",
) -> Job:
    record = ConsumerRecord(
        TOPICS.conversations, 1, 2, 1_790_000_000_000, 0, key, value, None, 0, len(value or b""), tuple(headers)
    )
    job = Job(NoTracker(), record, was_rehomed=False)
    try:
        decode(job)
    except Unprocessable:
        assert job.conversation is None
    job.outcome = Dead(DeadLetterReason.UNDECODABLE, detail)
    return job


@pytest.fixture
def dead_letters(producer: ConfirmedProducer) -> DeadLetterSink:
    return DeadLetterSink(producer, TOPICS.dead_letters, lambda: NOON)


async def test_dead_letters_keep_value_and_headers_in_order(dead_letters: DeadLetterSink, tansu: Tansu) -> None:
    """Byte for byte, whatever another program put there; a repeated one is kept too."""
    jobs = [
        dead_job(),
        dead_job(value=None),
        dead_job(headers=[]),
        dead_job(headers=[("null", None)]),
        dead_job(detail="über \0"),
        dead_job(),
    ]
    assert await dead_letters.send(jobs) == [None] * len(jobs)
    records = await records_of(tansu.bootstrap_servers, TOPICS.dead_letters)
    assert [record.value for record in records] == [job.source.value for job in jobs]
    for record, job in zip(records, jobs, strict=True):
        assert [header for header in record.headers if not header[0].startswith("dlq.")] == list(job.source.headers)
        assert isinstance(job.outcome, Dead)
        expected = {
            "dlq.key": b"key",
            "dlq.reason": b"undecodable",
            "dlq.detail": job.outcome.detail.encode(),
            "dlq.topic": b"conversations",
            "dlq.partition": b"1",
            "dlq.offset": b"2",
            "dlq.received_at": job.received_at.isoformat().encode(),
            "dlq.at": NOON.isoformat().encode(),
        }
        assert {name: value for name, value in record.headers if name.startswith("dlq.")} == expected


async def test_a_record_with_neither_key_nor_value_is_kept(dead_letters: DeadLetterSink, tansu: Tansu) -> None:
    """It is empty, but it was in the log and is accounted for."""
    assert await dead_letters.send([dead_job(key=None, value=None)]) == [None]
    [record] = await records_of(tansu.bootstrap_servers, TOPICS.dead_letters)
    assert not record.value
    assert dict(record.headers)["dlq.reason"] == b"undecodable"


async def test_a_dead_letter_is_keyed_by_its_conversation(dead_letters: DeadLetterSink, tansu: Tansu) -> None:
    """Where no id is readable the original key stays; it is among the headers either way."""
    await dead_letters.send([dead_job('{"id":"Grüße","text":"where is my order"}'.encode()), dead_job()])
    records = await records_of(tansu.bootstrap_servers, TOPICS.dead_letters)
    assert {record.key for record in records} == {"Grüße".encode(), b"key"}
    assert {dict(record.headers)["dlq.key"] for record in records} == {b"key"}
