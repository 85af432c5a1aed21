"""The owner partition is the one that Kafka's default partitioner chooses."""

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from agents.text_key import murmur2, owner_partition


@pytest.mark.parametrize(
    ("data", "signed_hash"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_has_the_values_of_kafkas_own_test(data: bytes, signed_hash: int) -> None:
    """From testMurmur2 in Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java."""
    assert murmur2(data) == signed_hash & 0xFFFFFFFF


@pytest.mark.parametrize("size", range(201))
def test_the_hash_equals_aiokafkas_for_every_length(size: int) -> None:
    """Each length has its own number of words and its own remainder of up to three bytes."""
    data = bytes((size * 31 + n * 7) % 256 for n in range(size))
    assert murmur2(data) == aiokafka_murmur2(data) & 0xFFFFFFFF


@given(st.binary(max_size=200))
def test_the_hash_equals_aiokafkas_for_any_bytes(data: bytes) -> None:
    """Including bytes beyond ASCII, which a text key never has."""
    assert murmur2(data) == aiokafka_murmur2(data) & 0xFFFFFFFF


@given(st.binary(min_size=1, max_size=80), st.integers(min_value=1, max_value=300))
def test_the_owner_is_where_a_producer_sends_the_key(key: bytes, partitions: int) -> None:
    """So a record that the gateway keyed by its text needs no repartitioning."""
    everywhere = list(range(partitions))
    assert owner_partition(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)
