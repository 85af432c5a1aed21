"""Small makers of records and pipelines for the tests of this folder."""

import json
from datetime import UTC, datetime

from streams.pipeline.home import home_partition
from streams.pipeline.record import Record, read_record

from agents.canonical_text import text_key
from schemas.kafka import Origin
from tests.support.topics import TOPICS

PARTITIONS = 8
READ_AT_S = 1_770_000_000.0
READ_AT = datetime.fromtimestamp(READ_AT_S, UTC)


def value_of(text: str = "where is my parcel", **fields: object) -> bytes:
    return json.dumps({"id": "c-1", "text": text, **fields}).encode()


def home_of(text: str) -> int:
    return home_partition(text_key("default", text), PARTITIONS)


def a_record(
    value: bytes | None,
    *,
    partition: int = 0,
    topic: str = TOPICS.conversations,
    key: bytes | None = b"k",
    headers: list[tuple[str, bytes]] | None = None,
) -> Record:
    return read_record(
        Origin(topic, partition, 42),
        key=key,
        value=value,
        headers=headers,
        timestamp_s=READ_AT_S,
        is_rehomed=topic == TOPICS.rehomed,
    )


def at_home(text: str = "where is my parcel", **fields: object) -> Record:
    """A record that stands in its text's home partition."""
    return a_record(value_of(text, **fields), partition=home_of(text))
