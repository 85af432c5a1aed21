"""What a coordinator answers that has just taken the group over is not taken for an answer."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.commit import OffsetFetchResponse_v3

from schemas.topics import CONSUMER_GROUP, Topic
from streams.pipeline.log_reader import LogReader

FIRST, SECOND = TopicPartition(Topic.CONVERSATIONS, 0), TopicPartition(Topic.CONVERSATIONS, 1)
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
    assert await admin.list_consumer_group_offsets(CONSUMER_GROUP, partitions=[FIRST]) == {}


async def test_a_coordinator_that_does_not_know_yet_is_asked_again() -> None:
    """Or a partition that has a committed offset would be read from its begin."""
    reader = LogReader({})
    reader._admin = admin_that_gets(refusal(LOADING), refusal(NOT_COORDINATOR), ANSWER)
    assert await reader.committed([FIRST, SECOND]) == {FIRST: 5, SECOND: None}
