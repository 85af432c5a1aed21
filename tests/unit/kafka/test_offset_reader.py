"""An incomplete response of the broker is never mistaken for an offset."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.commit import OffsetFetchResponse_v3

from streams.kafka import offset_reader
from streams.kafka.offset_reader import OffsetReader
from tests.support.topics import TOPICS

FIRST, SECOND = TopicPartition(TOPICS.conversations, 0), TopicPartition(TOPICS.conversations, 1)
LOADING, NOT_COORDINATOR = 14, 16
ANSWER = OffsetFetchResponse_v3(0, [(FIRST.topic, [(0, 5, "", 0), (1, -1, "", 0)])], 0)


def admin_that_receives(*answers: OffsetFetchResponse_v3) -> AIOKafkaAdminClient:
    """A client whose requests get these responses, one after the other."""
    left = list(answers)

    async def send_request(*_: object) -> OffsetFetchResponse_v3:
        return left.pop(0)

    async def find_coordinator(_: str) -> int:
        return 0

    admin = AIOKafkaAdminClient()
    for name, answer in {"_send_request": send_request, "find_coordinator": find_coordinator}.items():
        setattr(admin, name, cast(Callable[..., Awaitable[Any]], answer))
    return admin


def error_answer(error_code: int) -> OffsetFetchResponse_v3:
    return OffsetFetchResponse_v3(0, [], error_code)


async def test_aiokafka_drops_the_error_of_an_answer_without_partitions() -> None:
    """The defect that OffsetReader.committed_offsets works around; once this fails, remove the work-around."""
    admin = admin_that_receives(error_answer(LOADING))
    assert await admin.list_consumer_group_offsets(TOPICS.consumer_group, partitions=[FIRST]) == {}


async def test_a_coordinator_that_is_loading_is_asked_again() -> None:
    """Otherwise a partition with a committed offset would be read from its beginning."""
    reader = OffsetReader({}, TOPICS)
    reader._connected_admin = admin_that_receives(error_answer(LOADING), error_answer(NOT_COORDINATOR), ANSWER)
    assert await reader.committed_offsets([FIRST, SECOND]) == {FIRST: 5, SECOND: None}


class ConsumerWithoutFetches:
    """Its broker answers ListOffsets with less than the end, as Tansu does, and then no fetch."""

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 3)

    def assign(self, partitions: list[TopicPartition]) -> None: ...

    def unsubscribe(self) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def getmany(self, *_: object, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[object]]:
        await asyncio.sleep(0)
        return {}

    def highwater(self, partition: TopicPartition) -> int | None:
        return None

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        return None


async def test_an_unconfirmed_end_offset_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log would seem to end before the committed offset, and the partition would be read from its beginning."""
    monkeypatch.setattr(offset_reader, "LOOKUP_TIMEOUT_S", 0.01)
    reader = OffsetReader({}, TOPICS)
    reader._connected_admin = admin_that_receives(ANSWER)
    reader._connected_consumer = cast(AIOKafkaConsumer, ConsumerWithoutFetches())
    with pytest.raises(RequestTimedOutError):
        await reader.positions([FIRST])
