"""Translates errors of the Kafka clients for the people who run operations."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)

from schemas.errors import Fatal
from streams.kafka.clients import describe_broker_error, fatal_broker_error
from streams.kafka.unreadable_batch import UNREADABLE_HINT, UnreadableBatchError

#: Another attempt would be refused too.
REFUSALS = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)


@asynccontextmanager
async def broker_errors_as_fatal() -> AsyncIterator[None]:
    """Turns every KafkaError in the block or decorated function into a Fatal with a fitting hint."""
    try:
        yield
    except KafkaError as error:
        why = describe_broker_error(error)
        if isinstance(error, UnreadableBatchError):
            what, why, hint = "a batch cannot be read", error.args[0], UNREADABLE_HINT
        elif isinstance(error, REFUSALS):
            what, hint = "the brokers denied access", "grant this user the right, or use another user"
        elif isinstance(error, RequestTimedOutError):
            what, hint = "the broker stopped answering", "check that all brokers run, then run it again"
        else:
            raise fatal_broker_error(error) from error
        raise Fatal(what, why, hint) from error
