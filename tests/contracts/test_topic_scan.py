"""Topics are read to their end, and a scan that cannot reach the end fails."""

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, RequestTimedOutError

from streams.dev.local.brokers import Tansu
from streams.dev.local.ports import free_port
from streams.kafka import scan as topic_scan
from streams.kafka.producer import ConfirmedProducer
from streams.kafka.scan import scan
from tests.support.topics import TOPICS

FIRST = TopicPartition(TOPICS.conversations, 0)


async def offsets(options: dict[str, str], end: int) -> list[int]:
    return [record.offset async for batch in scan(options, {FIRST: (0, end)}) for record in batch]


async def test_a_log_that_has_become_shorter_is_an_error(
    tansu: Tansu, producer: ConfirmedProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an unclean election: aiokafka would request the missing records forever."""
    options = {"bootstrap_servers": tansu.bootstrap_servers}
    for _ in range(3):
        await producer.send(TOPICS.conversations, key=b"k", value=b"v", headers=[], partition=0)
    assert await offsets(options, 3) == [0, 1, 2]
    monkeypatch.setattr(topic_scan, "STALLED_AFTER_S", 2.0)
    with pytest.raises(RequestTimedOutError):
        await offsets(options, 5)


async def test_a_broker_that_does_not_run_is_an_error() -> None:
    """Nothing is left open: a warning about an unclosed consumer would fail the test."""
    with pytest.raises(KafkaError):
        await offsets({"bootstrap_servers": f"127.0.0.1:{free_port()}"}, 3)
