"""The fake events and the topic `insights` keep the same promises."""

from datetime import timedelta

import msgspec
import pytest
from streams.pipeline.delivery import Events
from streams.sinks.producer import ConfirmedProducer
from streams.sinks.results import ResultsSink

from schemas.result import ConversationResult
from streams.dev.local.tansu import Tansu
from tests.fakes.analysis import NOON, a_result
from tests.fakes.sinks import FakeEvents
from tests.support.topics import TOPICS
from tests.topic_log import records_of


class Announced:
    """Events under test, with a way to see what consumers are told."""

    def __init__(self, events: Events, bootstrap_servers: str = "") -> None:
        self.events = events
        self._bootstrap_servers = bootstrap_servers

    async def results(self) -> list[ConversationResult]:
        if isinstance(self.events, FakeEvents):
            return self.events.sent
        records = await records_of(self._bootstrap_servers, TOPICS.insights)
        return [msgspec.json.decode(record.value, type=ConversationResult) for record in records]


@pytest.fixture(params=["fake", "topic"])
def announced(request: pytest.FixtureRequest) -> Announced:
    if request.param == "fake":
        return Announced(FakeEvents())
    sink = ResultsSink(request.getfixturevalue("producer"), TOPICS.insights)
    return Announced(sink, request.getfixturevalue("tansu").bootstrap_servers)


async def test_what_was_sent_is_told(announced: Announced) -> None:
    """Down to the last field, whatever the outcome."""
    analysed, filtered = a_result(), a_result(id="c-2", outcome="filtered", insight=None, reason="too_short")
    await announced.events.send(analysed, None)
    await announced.events.send(filtered, None)
    told = await announced.results()
    assert sorted(told, key=lambda result: result.id) == [analysed, filtered]


async def test_one_conversations_events_keep_their_order(announced: Announced) -> None:
    """A consumer that takes the last one for the newest is right."""
    results = [a_result(occurred_at=NOON + timedelta(seconds=n)) for n in range(5)]
    for result in results:
        await announced.events.send(result, None)
    assert await announced.results() == results


async def test_a_repeated_send_is_a_repeated_event(announced: Announced) -> None:
    """A redelivery is told again: nobody keeps a list of what was told."""
    await announced.events.send(a_result(), None)
    await announced.events.send(a_result(), None)
    assert await announced.results() == [a_result()] * 2


async def test_an_event_says_what_it_is_in_its_headers(producer: ConfirmedProducer, tansu: Tansu) -> None:
    """CloudEvents' attributes, the tenant and the trace; the key is the conversation's id."""
    await ResultsSink(producer, TOPICS.insights).send(a_result(id="Grüße"), "00-trace-span-01")
    await ResultsSink(producer, TOPICS.insights).send(a_result(id="untraced"), None)
    records = await records_of(tansu.bootstrap_servers, TOPICS.insights)
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
