"""Errors of the Kafka clients are shown with the hint that helps."""

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError, TopicAuthorizationFailedError

from schemas.errors import Fatal
from streams.operations.broker_errors import broker_errors_as_fatal


@pytest.mark.parametrize(
    ("error", "what", "why", "hint"),
    [
        (
            TopicAuthorizationFailedError("conversations.dlq"),
            "denied access",
            "TopicAuthorizationFailedError: conversations.dlq",
            "right",
        ),
        (
            RequestTimedOutError("nothing came within 30 s"),
            "stopped answering",
            "RequestTimedOutError: nothing came within 30 s",
            "brokers run",
        ),
        (KafkaConnectionError(), "cannot be used", "no broker accepts a connection", "KAFKA_BOOTSTRAP_SERVERS"),
        (
            KafkaConnectionError("Connection at broker:9092 closed"),
            "cannot be used",
            "Connection at broker:9092 closed",
            "KAFKA_BOOTSTRAP_SERVERS",
        ),
    ],
)
async def test_each_kind_of_failure_has_its_own_hint(error: KafkaError, what: str, why: str, hint: str) -> None:
    """A refusal does not ask to check whether the broker runs; the cause is always named."""

    @broker_errors_as_fatal()
    async def fail() -> None:
        raise error

    for _ in range(2):
        with pytest.raises(Fatal, match=what) as raised:
            await fail()
        assert hint in raised.value.hint
        assert raised.value.why == why
