"""What the brokers answer, as people are told it."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)

from schemas.errors import Fatal

#: Nothing that passes: another attempt would be refused too.
REFUSALS = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)


def as_fatal(error: KafkaError) -> Fatal:
    """A refusal, a silence and everything else want different hints."""
    why = f"{type(error).__name__}: {error.args[0]}" if error.args else type(error).__name__
    if isinstance(error, REFUSALS):
        return Fatal("the brokers do not allow this", why, "give this user the right to, or use another user")
    if isinstance(error, RequestTimedOutError):
        return Fatal("the broker sends nothing more", why, "see whether it still runs, then do it again")
    return Fatal("the broker cannot be used", why, "check KAFKA_BOOTSTRAP_SERVERS and that the broker runs")


@contextmanager
def told_as_fatal() -> Iterator[None]:
    """What the clients raise of the brokers becomes Fatal."""
    try:
        yield
    except KafkaError as error:
        raise as_fatal(error) from error
