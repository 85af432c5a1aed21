"""Says which batch of a log cannot be read: its bytes changed on the broker's disk, or no codec of ours opens it.

aiokafka 0.14 raises whatever the batch fails with (CorruptRecordException, an error of the codec, struct.error), names
no offset, and drops the records of the batches in front of it that came in the same fetch.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaError

UNREADABLE_HINT = (
    "let an intact replica lead the partition, or give the batch up with kafka-delete-records.sh; see Unreadable "
    "batches in the README"
)


class UnreadableBatchError(KafkaError):  # type: ignore[misc]
    """No record from this offset on can be read; the cause says why.

    `AIOKafkaConsumer.getmany` that raises it drops what it had taken from other partitions, and has moved their
    positions: seek before the next call.
    """

    def __init__(self, tp: TopicPartition, offset: int, cause: Exception) -> None:
        super().__init__(f"{tp.topic} partition {tp.partition} offset {offset}: {type(cause).__name__}")
        self.tp = tp
        self.offset = offset


def name_unreadable_batches() -> None:
    """For every consumer of this process; may be called any number of times."""
    fetcher.PartitionRecords = _PartitionRecords


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    def _unpack_records(self) -> Iterator[Any]:
        begin = self.next_fetch_offset
        try:
            yield from super()._unpack_records()
        except Exception as error:  # a broken batch may fail in any way
            # What comes before it is delivered first: then the next fetch begins with it.
            if self.next_fetch_offset == begin:
                raise UnreadableBatchError(self._tp, begin, error) from error
