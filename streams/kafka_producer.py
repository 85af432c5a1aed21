"""A producer that confirms: acks=all, idempotent where the broker knows how."""

from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import UnknownError, UnsupportedVersionError

log = structlog.get_logger()


async def started_producer(client_options: Mapping[str, Any], **options: Any) -> AIOKafkaProducer:
    """A started producer; `options` are further arguments of AIOKafkaProducer.

    Tansu gives out no producer ids to aiokafka (it answers InitProducerId with an error): there, and only there, a
    retried send may stand twice in the log. Raises aiokafka.errors.KafkaError when no broker answers.
    """
    producer = AIOKafkaProducer(**client_options, acks="all", enable_idempotence=True, **options)
    try:
        await producer.start()
    except (UnknownError, UnsupportedVersionError):
        await producer.stop()
        log.warning("producer_not_idempotent", reason="the broker gives out no producer ids")
        producer = AIOKafkaProducer(**client_options, acks="all", **options)
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer
