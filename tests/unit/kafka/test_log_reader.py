"""What a coordinator answers that has just taken the group over, or a broker that is falling silent, is no answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.commit import OffsetFetchResponse_v3

from streams.kafka import log_reader
from streams.kafka.log_reader import LogReader
from tests.support.topics import TOPICS

FIRST, SECOND = TopicPartition(TOPICS.conversations, 0), TopicPartition(TOPICS.conversations, 1)
LOADING, NOT_COORDINATOR = 14, 16
ANSWER = OffsetFetchResponse_v3(0, [(FIRST.topic, [(0, 5, "", 0), (1, -1, "", 0)])], 0)


def admin_that_gets(*answers: OffsetFetchResponse_v3) -> AIOKafkaAdminClient:
    """A client whose requests are answered so, one after the other."""
    left = list(answers)

    async def send_request(*_: object) -> OffsetFetchResponse_v3:
        return left.pop(0)

    async def find_coordinator(_: str) -> int:
        return 0

    admin = AIOKafkaAdminClient()
    for name, answer in {"_send_request": send_request, "find_coordinator": find_coordinator}.items():
        setattr(admin, name, cast(Callable[..., Awaitable[Any]], answer))
    return admin


def refusal(error_code: int) -> OffsetFetchResponse_v3:
    return OffsetFetchResponse_v3(0, [], error_code)


async def test_aiokafka_drops_the_error_of_an_answer_without_partitions() -> None:
    """The defect that LogReader.committed works around: once this fails, the work-around can go."""
    admin = admin_that_gets(refusal(LOADING))
    assert await admin.list_consumer_group_offsets(TOPICS.consumer_group, partitions=[FIRST]) == {}


async def test_a_coordinator_that_does_not_know_yet_is_asked_again() -> None:
    """Or a partition that has a committed offset would be read from its begin."""
    reader = LogReader({}, TOPICS)
    reader._admin = admin_that_gets(refusal(LOADING), refusal(NOT_COORDINATOR), ANSWER)
    assert await reader.committed([FIRST, SECOND]) == {FIRST: 5, SECOND: None}


class LogThatTellsNoEnd:
    """Its broker answers ListOffsets as Tansu does, with less than the end, and then no fetch."""

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


async def test_an_end_that_nobody_confirms_is_not_taken_for_a_shorter_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The partition would be worked on again from its begin, for the log seems to end before the committed offset."""
    monkeypatch.setattr(log_reader, "LOOK_TIMEOUT_S", 0.01)
    reader = LogReader({}, TOPICS)
    reader._admin = admin_that_gets(ANSWER)
    reader._consumer = cast(AIOKafkaConsumer, LogThatTellsNoEnd())
    with pytest.raises(RequestTimedOutError):
        await reader.start_of_reading(FIRST)
