"""Events as consumers of the topic `insights` get them."""

from datetime import timedelta

import msgspec

from schemas.conversation import Repair
from schemas.result import ConversationResult
from streams.kafka.producer import ConfirmedProducer
from streams.sinks.events import EventSink
from tests.contracts.conftest import Cluster
from tests.support.factories import NOON, a_job, a_record, a_result, result_jobs, value_of
from tests.support.topic_log import records_of


async def test_an_event_holds_the_whole_result(cluster: Cluster, confirmed: ConfirmedProducer) -> None:
    """Down to the last field, whatever the outcome."""
    analysed = a_result(metadata={"order": [7, None]}, repairs=(Repair.TEXT_CUT,))
    filtered = a_result(id="c-2", outcome="filtered", insight=None, reason="too_short")
    await EventSink(confirmed, cluster.topics.insights).send(result_jobs(analysed, filtered))
    records = await records_of(cluster.bootstrap_servers, cluster.topics.insights)
    results = [msgspec.json.decode(record.value, type=ConversationResult) for record in records]
    assert sorted(results, key=lambda result: result.id) == [analysed, filtered]


async def test_one_conversations_events_keep_their_order(cluster: Cluster, confirmed: ConfirmedProducer) -> None:
    """A consumer that takes the last one for the newest is right; they are in one partition."""
    results = [a_result(occurred_at=NOON + timedelta(seconds=n)) for n in range(20)]
    sink = EventSink(confirmed, cluster.topics.insights)
    for start in range(0, 20, 5):
        await sink.send(result_jobs(*results[start : start + 5]))
    records = await records_of(cluster.bootstrap_servers, cluster.topics.insights)
    assert [msgspec.json.decode(record.value, type=ConversationResult) for record in records] == results


async def test_an_event_says_what_it_is_in_its_headers(cluster: Cluster, confirmed: ConfirmedProducer) -> None:
    """CloudEvents' attributes, the tenant and the trace; the key is the conversation's id."""
    traced = a_record(value_of(id="Grüße"), headers=[("traceparent", b"00-trace-span-01")])
    jobs = [a_job(traced, result=a_result(id="Grüße")), *result_jobs(a_result(id="untraced"))]
    await EventSink(confirmed, cluster.topics.insights).send(jobs)
    records = await records_of(cluster.bootstrap_servers, cluster.topics.insights)
    headers = {record.key.decode(): dict(record.headers) for record in records}
    assert headers["Grüße"] == {
        "ce_specversion": b"1.0",
        "ce_id": f"default:Grüße:{NOON.isoformat()}".encode(),
        "ce_type": b"grok-insights.insight",
        "ce_source": b"/conversations/1/2",
        "ce_time": NOON.isoformat().encode(),
        "content-type": b"application/json",
        "tenant": b"default",
        "traceparent": b"00-trace-span-01",
    }
    assert "traceparent" not in headers["untraced"]
