"""What a replay does to the ledger before its first letter: proves that it may write, and forgets what is gone."""

import asyncio
from collections.abc import Mapping

from aiokafka import TopicPartition

from streams.dlq.confirm import Sender, confirmed
from streams.dlq.ledger import Ledger

#: No letter's name, so that nobody takes it for a mark; without a value, compaction removes it.
PROBE_KEY = b"may-write"
_AT_ONCE = 256


async def check_may_mark(sender: Sender, topic: str) -> None:
    """Proves that the ledger can be written, before anything is sent. Raises Fatal."""
    await confirmed(sender, topic, key=PROBE_KEY, value=None, headers=[])


async def forget_removed(
    sender: Sender, topic: str, ledger: Ledger, bounds: Mapping[TopicPartition, tuple[int, int]]
) -> None:
    """Takes back the marks of letters that retention removed. Raises Fatal when the brokers do not confirm."""
    removed = ledger.before({partition.partition: begin for partition, (begin, _) in bounds.items()})
    for first in range(0, len(removed), _AT_ONCE):
        keys = [str(letter_id).encode() for letter_id in removed[first : first + _AT_ONCE]]
        await asyncio.gather(*(confirmed(sender, topic, key=key, value=None, headers=[]) for key in keys))
