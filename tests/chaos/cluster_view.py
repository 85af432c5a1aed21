"""The cluster as one broker sees it at this moment: live brokers, and each partition's replicas."""

import socket
import struct
from dataclasses import dataclass

from aiokafka.protocol.metadata import MetadataResponse_v1

from streams.dev.local.ports import LOOPBACK

_TIMEOUT_S = 2.0
# Metadata, version 1, correlation id 1, no client id, all topics.
_ALL_TOPICS = struct.pack(">ihhihi", 14, 3, 1, 1, -1, -1)


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition by the broker's own account; `leader` is -1 when it has none."""

    topic: str
    number: int
    leader: int
    replicas: frozenset[int]
    in_sync: frozenset[int]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """`brokers` are the ids of those that take requests."""

    brokers: frozenset[int]
    partitions: tuple[Partition, ...]

    def is_caught_up(self, broker: int) -> bool:
        """It takes requests and is in sync wherever it holds a replica."""
        held = (partition for partition in self.partitions if broker in partition.replicas)
        return broker in self.brokers and all(broker in partition.in_sync for partition in held)


def ask(port: int) -> ClusterView | None:
    """The view of the broker on `port`, or None when it does not answer within two seconds."""
    try:
        with socket.create_connection((LOOPBACK, port), _TIMEOUT_S) as connection:
            connection.sendall(_ALL_TOPICS)
            with connection.makefile("rb") as answer:
                size = struct.unpack(">i", answer.read(4))[0]
                reply = MetadataResponse_v1.decode(answer.read(size)[4:])
    except (OSError, ValueError, struct.error):
        return None
    return ClusterView(
        frozenset(broker[0] for broker in reply.brokers),
        tuple(
            Partition(topic, number, leader, frozenset(replicas), frozenset(in_sync))
            for _, topic, _, partitions in reply.topics
            for _, number, leader, replicas, in_sync in partitions
        ),
    )
