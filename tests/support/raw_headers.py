"""Produce batches with any bytes as header names, as C clients can write them and aiokafka cannot."""

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy


class RawName(str):
    """A header name that is written as these bytes."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, raw: bytes) -> "RawName":
        name = super().__new__(cls, repr(raw))
        name.raw = raw
        return name

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self.raw


def raw_batch(compression_type: int = 0) -> BatchBuilder:
    """For AIOKafkaProducer.send_batch; its headers may have a RawName."""
    batch = BatchBuilder(1 << 20, compression_type)
    batch._builder = _DefaultRecordBatchBuilderPy(
        magic=2,
        compression_type=compression_type,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=0,
        batch_size=1 << 20,
    )
    return batch
