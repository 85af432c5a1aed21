"""What brokers answer is told with the hint that helps."""

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError, TopicAuthorizationFailedError

from schemas.errors import Fatal
from streams.dlq.broker_errors import told_as_fatal


@pytest.mark.parametrize(
    ("error", "what", "hint"),
    [
        (TopicAuthorizationFailedError("conversations.dlq"), "do not allow", "right"),
        (RequestTimedOutError("nothing came within 30 s"), "sends nothing more", "still runs"),
        (KafkaConnectionError(), "cannot be used", "KAFKA_BOOTSTRAP_SERVERS"),
    ],
)
def test_each_kind_of_failure_has_its_own_hint(error: KafkaError, what: str, hint: str) -> None:
    """A refusal is no reason to look whether the broker runs; the cause is always named."""
    with pytest.raises(Fatal, match=what) as told, told_as_fatal():
        raise error
    assert hint in told.value.hint
    assert type(error).__name__ in told.value.why
