"""The fake sender and the real topic sinks behave alike."""

import asyncio
from typing import NamedTuple

import pytest
from aiokafka.errors import InvalidProducerEpoch
from aiokafka.structs import ConsumerRecord

from agents.analyst import Sender
from agents.decode import Job
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Retryable, Unprocessable
from schemas.outcome import Dead
from streams.kafka.producer import ConfirmedProducer
from streams.sinks.dead_letters import DeadLetterSink
from streams.sinks.events import EventSink
from streams.sinks.rehomed import RehomedSink
from tests.contracts.conftest import Cluster
from tests.fakes.sinks import FakeSender
from tests.support.factories import NOON, a_job, a_record, a_result, value_of
from tests.support.topic_log import records_of


class Topic(NamedTuple):
    """A sender under test; the real ones with their producer, and with the topic where their records end up."""

    sender: Sender
    name: str = ""
    cluster: Cluster | None = None
    producer: ConfirmedProducer | None = None

    async def records(self) -> list[ConsumerRecord]:
        assert self.cluster is not None
        return await records_of(self.cluster.bootstrap_servers, self.name)

    async def values(self) -> list[bytes]:
        """Returns the values of the jobs that arrived, in any order."""
        if isinstance(self.sender, FakeSender):
            return sorted(job.source.value for job in self.sender.sent)
        records = await self.records()
        if isinstance(self.sender, EventSink):
            return sorted(value_of(id=record.key.decode()) for record in records)
        return sorted(record.value for record in records)


@pytest.fixture(params=["fake", "events", "rehomed", "dead letters"])
def topic(request: pytest.FixtureRequest) -> Topic:
    if request.param == "fake":
        return Topic(FakeSender())
    cluster: Cluster = request.getfixturevalue("cluster")
    producer: ConfirmedProducer = request.getfixturevalue("confirmed")
    if request.param == "events":
        return Topic(EventSink(producer, cluster.topics.insights), cluster.topics.insights, cluster, producer)
    if request.param == "rehomed":
        return Topic(RehomedSink(producer, cluster.topics.rehomed), cluster.topics.rehomed, cluster, producer)
    sink = DeadLetterSink(producer, cluster.topics.dead_letters, lambda: NOON)
    return Topic(sink, cluster.topics.dead_letters, cluster, producer)


def jobs(count: int) -> list[Job]:
    """Jobs with everything that any sender needs."""
    made = [a_job(a_record(value_of(id=f"c-{n}"), offset=n), result=a_result(id=f"c-{n}")) for n in range(count)]
    for job in made:
        job.outcome = Dead(DeadLetterReason.REFUSED, "the provider refused")
    return made


@pytest.mark.parametrize("cluster", ["tansu"], indirect=True)
async def test_every_job_is_sent_once(topic: Topic, cluster: Cluster) -> None:
    """Each has its own result, in the order given."""
    sent = jobs(200)
    assert list(await topic.sender.send(sent)) == [None] * 200
    assert await topic.values() == sorted(job.source.value for job in sent if job.source.value is not None)


@pytest.mark.parametrize("cluster", ["tansu"], indirect=True)
async def test_what_is_sent_again_arrives_again(topic: Topic, cluster: Cluster) -> None:
    """Senders keep no list of what was sent; nothing is sent when nothing is given."""
    for _ in range(2):
        await topic.sender.send(jobs(1))
    assert await topic.sender.send([]) == []
    assert await topic.values() == [value_of(id="c-0")] * 2


@pytest.mark.parametrize("cluster", ["tansu"], indirect=True)
async def test_what_brokers_do_not_take_now_is_retryable(topic: Topic, cluster: Cluster) -> None:
    """One of the next attempts succeeds, once the sender has reconnected."""
    if isinstance(topic.sender, FakeSender):
        topic.sender.errors[0] = [Retryable("Kafka: InvalidProducerEpoch")]
    else:
        assert topic.producer is not None
        broken = await topic.producer._connection.connected()
        broken._message_accumulator.fail_all(InvalidProducerEpoch())
    [job] = jobs(1)
    [error] = await topic.sender.send([job])
    assert isinstance(error, Retryable)
    async with asyncio.timeout(30):
        while await topic.sender.send([job]) != [None]:
            await asyncio.sleep(0)
    assert await topic.values() == [job.source.value]


@pytest.mark.parametrize("cluster", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_a_record_that_is_too_large_is_refused_and_its_neighbours_are_not(
    cluster: Cluster, confirmed: ConfirmedProducer
) -> None:
    """It is refused permanently: another attempt would fail as well."""
    fake = FakeSender()
    fake.errors[1] = [Unprocessable(DeadLetterReason.TOO_LARGE, "too large for the topic")]
    for sender in (fake, RehomedSink(confirmed, cluster.topics.rehomed)):
        batch = jobs(3)
        batch[1].source = a_record(b"x" * 2 * 1024 * 1024, offset=1)
        errors: dict[int, Exception | None] = {}
        async with asyncio.timeout(30):
            while wanted := [
                job for job in batch if not isinstance(errors.get(id(job), Retryable("")), Unprocessable | None)
            ]:
                errors |= zip(map(id, wanted), await sender.send(wanted), strict=True)
        assert [type(errors[id(job)]) for job in batch] == [type(None), Unprocessable, type(None)]
