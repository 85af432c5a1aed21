"""Dead letters as they are stored in the topic `conversations.dlq`."""

import random

import pytest
from aiokafka.structs import ConsumerRecord

from agents.decode import Job
from schemas.dead_letter import DeadLetterReason
from schemas.outcome import Dead
from streams.kafka.producer import ConfirmedProducer
from streams.sinks.dead_letters import TRUNCATED, TRUNCATED_BYTES, DeadLetterSink
from tests.contracts.conftest import Cluster
from tests.support.factories import NOON, WRITTEN_AT, a_dead_job, a_job, a_record, value_of
from tests.support.topic_log import records_of

MIB = 1024 * 1024


async def buried(cluster: Cluster, producer: ConfirmedProducer, *jobs: Job) -> list[ConsumerRecord]:
    sink = DeadLetterSink(producer, cluster.topics.dead_letters, lambda: NOON)
    assert await sink.send(jobs) == [None] * len(jobs)
    return await records_of(cluster.bootstrap_servers, cluster.topics.dead_letters)


async def test_a_record_is_kept_as_it_is(cluster: Cluster, confirmed: ConfirmedProducer) -> None:
    """Value and headers are stored byte for byte, whatever the producer put there, followed by the reason."""
    foreign = [("a", b"\xff"), ("a", b"again"), ("null", None)]
    job = a_dead_job(a_record(b"not json \xff", headers=foreign))  # type: ignore[arg-type]
    job.outcome = Dead(DeadLetterReason.UNDECODABLE, "über \0")
    [record] = await buried(cluster, confirmed, job)
    assert (record.value, record.key, list(record.headers)[:3]) == (b"not json \xff", b"key", foreign)
    assert dict(record.headers) | {"a": b"", "null": b""} == {
        "a": b"",
        "null": b"",
        "dlq.key": b"key",
        "dlq.reason": b"undecodable",
        "dlq.detail": "über \0".encode(),
        "dlq.topic": b"conversations",
        "dlq.partition": b"0",
        "dlq.offset": b"42",
        "dlq.received_at": WRITTEN_AT.isoformat().encode(),
        "dlq.at": NOON.isoformat().encode(),
    }


@pytest.mark.parametrize(("key", "value"), [(b"key", None), (None, b""), (None, None)])
async def test_a_record_of_neither_key_nor_value_is_kept(
    cluster: Cluster, confirmed: ConfirmedProducer, key: bytes | None, value: bytes | None
) -> None:
    """It is empty, but it was in the log and must be accounted for."""
    [record] = await buried(cluster, confirmed, a_dead_job(a_record(value, key=key)))
    assert (record.key, record.value or b"") == (key, value or b"")


async def test_a_dead_letter_is_keyed_by_its_conversation(cluster: Cluster, confirmed: ConfirmedProducer) -> None:
    """And names it in a header. Where no id could be read the original key stays; it is in a header either way."""
    with_id = a_job(a_record(value_of(id="Grüße"), key=b"foreign"))
    with_id.outcome = Dead(DeadLetterReason.REFUSED, "the provider refused")
    records = await buried(cluster, confirmed, with_id, a_dead_job(a_record(b"not json", key=b"foreign")))
    named = {record.key: dict(record.headers).get("dlq.conversation_id") for record in records}
    assert named == {"Grüße".encode(): "Grüße".encode(), b"foreign": None}
    assert {dict(record.headers)["dlq.key"] for record in records} == {b"foreign"}


@pytest.mark.parametrize("cluster", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_a_value_that_does_not_fit_is_cut(cluster: Cluster, confirmed: ConfirmedProducer) -> None:
    """Its original size is in a header; other records of the batch are complete."""
    value = random.Random(0).randbytes(3 * MIB)
    jobs = [a_dead_job(a_record(b"small", offset=0)), a_dead_job(a_record(value, offset=1))]
    sink = DeadLetterSink(confirmed, cluster.topics.dead_letters, lambda: NOON)
    while left := [job for job, error in zip(jobs, await sink.send(jobs), strict=True) if error is not None]:
        jobs = left
    records = await records_of(cluster.bootstrap_servers, cluster.topics.dead_letters)
    found = {dict(record.headers)["dlq.offset"]: record for record in records}
    assert found[b"0"].value == b"small"
    assert found[b"1"].value == value[:TRUNCATED_BYTES]
    assert dict(found[b"1"].headers)[TRUNCATED] == b"%d" % len(value)
