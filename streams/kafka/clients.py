"""Clients: one translation of the settings for every producer, consumer and admin client, and how to stop one."""

import asyncio
import ssl
from typing import Any

from aiokafka import AIOKafkaConsumer

from schemas.errors import Fatal
from schemas.settings import Settings

_CANCEL_AGAIN_S = 0.2


def client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of aiokafka's clients: addresses, security protocol, SASL login, SSL context.

    Raises Fatal when no brokers are set or a certificate file cannot be read.
    """
    if settings.kafka_bootstrap_servers is None:
        raise Fatal("no broker is set", "KAFKA_BOOTSTRAP_SERVERS is empty", "set it to host:port", exit_code=2)
    protocol = settings.kafka_security_protocol
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": protocol,
    }
    if protocol.startswith("SASL"):
        assert settings.kafka_sasl_password is not None, "Settings lets no SASL protocol pass without a login"
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    if protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    return options


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile is not None:
            context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        hint = "check KAFKA_SSL_CAFILE, KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"
        raise Fatal(
            "the certificates for the brokers cannot be used", error.strerror or type(error).__name__, hint
        ) from error
    return context


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Returns when the consumer is closed; by itself aiokafka's may never stop.

    aiokafka 0.14 cancels its fetching once and waits for it. When the assignment has just changed, the fetching takes
    the cancellation for that of its own pending request, and continues (tests/contracts/test_stop_consumer.py shows
    it). So it is cancelled until it ends.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    try:
        while not (await asyncio.wait({stopping}, timeout=_CANCEL_AGAIN_S))[0]:
            fetching = getattr(consumer._fetcher, "_fetch_task", None)
            if fetching is not None:
                fetching.cancel()
        await stopping
    finally:
        stopping.cancel()  # a caller that gave up waiting leaves nothing running
