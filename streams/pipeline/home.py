"""Home partitions: where Kafka's default partitioner puts a text's key, so that equal texts always meet."""

from collections.abc import Callable

from aiokafka.partitioner import murmur2

from streams.pipeline.record import Record, headers_home
from streams.sinks.producer import ConfirmedProducer


def home_partition(text_key: str, partitions: int) -> int:
    """murmur2 of the key's bytes, made positive, modulo the number of partitions (Kafka's DefaultPartitioner)."""
    return int(murmur2(text_key.encode()) & 0x7FFFFFFF) % partitions


class Rehoming:
    """Sends records that a foreign producer keyed otherwise on to their home; `partitions` is known after the start."""

    def __init__(self, producer: ConfirmedProducer, topic: str, partitions: Callable[[], int]) -> None:
        self._producer = producer
        self._topic = topic
        self._partitions = partitions

    def is_away(self, record: Record, text_key: str) -> bool:
        """True where equal texts would not meet; a record is sent home once, and from then on worked on where it is."""
        return not record.was_rehomed and record.partition != home_partition(text_key, self._partitions())

    async def send_home(self, record: Record, text_key: str) -> None:
        """Returns when the brokers have the record under its text key. Raises Retryable."""
        await self._producer.send(
            self._topic,
            key=text_key.encode(),
            value=record.value,
            headers=headers_home(record),
            partition=home_partition(text_key, self._partitions()),
        )
