"""Rehomed records as the owner of their text reads them."""

from agents.decode import Record
from schemas.kafka import Origin
from streams.kafka.producer import ConfirmedProducer
from streams.sinks.rehomed import RehomedSink
from tests.contracts.conftest import PARTITIONS, Cluster
from tests.support.factories import WRITTEN_AT, a_job, a_record, owner_of, value_of
from tests.support.topic_log import records_of


async def test_a_record_arrives_in_the_partition_that_owns_its_text(
    cluster: Cluster, confirmed: ConfirmedProducer
) -> None:
    """With the original value, under the text key."""
    texts = [f"where is parcel number {n}" for n in range(50)]
    jobs = [a_job(a_record(value_of(text), offset=n)) for n, text in enumerate(texts)]
    await RehomedSink(confirmed, cluster.topics.rehomed).send(jobs)
    records = await records_of(cluster.bootstrap_servers, cluster.topics.rehomed)
    arrived = {record.value: (record.partition, record.key) for record in records}
    assert arrived == {
        value_of(text): (owner_of(text, PARTITIONS), job.text_key.encode())
        for text, job in zip(texts, jobs, strict=True)
    }


async def test_origin_key_time_and_headers_come_through(cluster: Cluster, confirmed: ConfirmedProducer) -> None:
    """As the record had them when it was first read; a header or key may be missing."""
    foreign = [("tenant", b"acme"), ("null", None), ("a", b"\xff")]
    sent = [a_record(key=b"foreign", headers=foreign, offset=1), a_record(key=None, offset=2)]  # type: ignore[arg-type]
    await RehomedSink(confirmed, cluster.topics.rehomed).send([a_job(record) for record in sent])
    records = await records_of(cluster.bootstrap_servers, cluster.topics.rehomed)
    first, second = sorted((Record(record, was_rehomed=True) for record in records), key=lambda at: at.origin.offset)
    assert (first.origin, first.key, first.received_at) == (Origin("conversations", 0, 1), b"foreign", WRITTEN_AT)
    assert [header for header in first.headers if header[0] != "ce_time"] == foreign
    assert (second.origin.offset, second.key) == (2, None)
