"""Reads the group's commits and generations from __consumer_offsets. Pure.

The format is Kafka's own (GroupMetadataManager: keys of version 0 and 1 are commits, 2 is the group): big-endian,
strings with a 16-bit length. Only the fields that come first in every version are read.
"""

import struct
from dataclasses import dataclass

from tests.support.topics import TOPICS

_COMMIT_KEYS = (0, 1)
_GROUP_KEY = 2
_FLEXIBLE_VERSION = 4


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed offset and its time."""

    topic: str
    partition: int
    offset: int
    at_ms: int


def read_commit(key: bytes | None, value: bytes | None, at_ms: int) -> Commit | None:
    """None for other records, for other groups and for tombstones."""
    if key is None or value is None or _version(key) not in _COMMIT_KEYS:
        return None
    group, rest = _string(key[2:])
    if group != TOPICS.consumer_group:
        return None
    topic, rest = _string(rest)
    [partition] = struct.unpack_from(">i", rest)
    [offset] = struct.unpack_from(">q", value, 2)
    return Commit(topic, partition, offset, at_ms)


def read_generation(key: bytes | None, value: bytes | None) -> int | None:
    """The group's generation; each rebalance ends with a higher one. None for other records."""
    if key is None or value is None or _version(key) != _GROUP_KEY or _string(key[2:])[0] != TOPICS.consumer_group:
        return None
    assert _version(value) < _FLEXIBLE_VERSION, "this Kafka writes the group in another format"
    _, rest = _string(value[2:])
    return int(struct.unpack_from(">i", rest)[0])


def _version(key: bytes) -> int:
    return int.from_bytes(key[:2], "big")


def _string(encoded: bytes) -> tuple[str, bytes]:
    end = 2 + int.from_bytes(encoded[:2], "big")
    return encoded[2:end].decode(), encoded[end:]
