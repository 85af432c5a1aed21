"""Builds the options of all Kafka clients from the settings, and stops consumers reliably."""

import asyncio
import ssl
from functools import partial
from typing import Any

import aiokafka.admin.client
import aiokafka.client
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from schemas.errors import Fatal
from schemas.settings import Settings
from streams.kafka.header_names import accept_any_header_name
from streams.kafka.unreachable_brokers import (
    CHECK_SERVERS,
    UnreachableBrokersError,
    UnreachableNodeError,
    name_unreachable_brokers,
)
from streams.kafka.unreadable_batch import name_unreadable_batches

#: For every consumer: records of aborted transactions do not count, and those of open ones are not there yet.
READ_COMMITTED = "read_committed"
_CANCEL_AGAIN_S = 0.2


def client_options(settings: Settings) -> dict[str, Any]:
    """Returns the keyword arguments for aiokafka's clients: servers, protocol, SASL, TLS.

    Raises Fatal when no broker is configured or a certificate file cannot be read.
    """
    if settings.kafka_bootstrap_servers is None:
        raise Fatal("no broker is configured", "KAFKA_BOOTSTRAP_SERVERS is empty", "set it to host:port", exit_code=2)
    accept_any_header_name()
    name_unreadable_batches()
    never_create_topics()
    name_unreachable_brokers()
    protocol = settings.kafka_security_protocol
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": protocol,
    }
    if protocol.startswith("SASL"):
        assert settings.kafka_sasl_password is not None, "Settings requires a login for SASL"
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    if protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    return options


def never_create_topics() -> None:
    """For every client of this process; may be called any number of times.

    aiokafka 0.14 asks about topics in a way that lets a broker with `auto.create.topics.enable` create the missing
    ones, with its own number of partitions and retention, and has no option against it.
    """
    request = partial(MetadataRequest, allow_auto_topic_creation=False)
    aiokafka.client.MetadataRequest = aiokafka.admin.client.MetadataRequest = request


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile is not None:
            context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        hint = "check KAFKA_SSL_CAFILE, KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"
        why = error.strerror or type(error).__name__
        raise Fatal("the TLS certificates for Kafka cannot be used", why, hint) from error
    return context


def describe_broker_error(error: KafkaError) -> str:
    """Returns what failed and what to check, on one line: aiokafka's own text repeats the class and shows objects."""
    if isinstance(error, UnreachableBrokersError | UnreachableNodeError):
        return f"{error.why}; {error.hint}"
    if isinstance(error, KafkaConnectionError):
        return str(error.args[0]) if error.args else "no broker accepts a connection"
    return f"{type(error).__name__}: {error.args[0]}" if error.args else type(error).__name__


def fatal_broker_error(error: KafkaError) -> Fatal:
    """Returns the Fatal error for commands that do not retry."""
    what = "the broker cannot be used"
    if isinstance(error, UnreachableBrokersError | UnreachableNodeError):
        return Fatal(what, error.why, error.hint)
    return Fatal(what, describe_broker_error(error), CHECK_SERVERS)


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Closes the consumer; aiokafka's own `stop` may hang.

    aiokafka 0.14 cancels its fetch task once and waits for it. If the assignment has just changed, the task mistakes
    the cancellation for that of its pending request and continues (tests/contracts/test_stop_consumer.py shows it).
    This cancels the task until it ends.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    try:
        while not (await asyncio.wait({stopping}, timeout=_CANCEL_AGAIN_S))[0]:
            fetch_task = getattr(consumer._fetcher, "_fetch_task", None)
            if fetch_task is not None:
                fetch_task.cancel()
        await stopping
    finally:
        stopping.cancel()  # nothing keeps running when the caller was cancelled
