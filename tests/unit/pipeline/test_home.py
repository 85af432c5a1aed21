"""Home partitions are Kafka's own: a gateway's record is at home where it lands."""

import hashlib
import random

from aiokafka.partitioner import DefaultPartitioner
from streams.pipeline.home import home_partition


def test_home_is_where_kafkas_default_partitioner_puts_the_key() -> None:
    """For every count of partitions, so that records of the gateway are never sent on."""
    partitioner = DefaultPartitioner()
    for partitions in (1, 2, 3, 8, 30):
        for n in range(200):
            key = hashlib.sha256(b"%d" % n).hexdigest()
            everywhere = list(range(partitions))
            assert home_partition(key, partitions) == partitioner(key.encode(), everywhere, everywhere)


def test_homes_are_spread_evenly() -> None:
    """No partition gets more than a fifth above its share of many texts."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    source = random.Random(seed)
    counts = [0] * 8
    for _ in range(20_000):
        counts[home_partition(f"{source.getrandbits(256):064x}", 8)] += 1
    assert max(counts) < 20_000 / 8 * 1.2
