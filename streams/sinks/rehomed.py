"""Rehomed records: sent on to the partition that owns their text, into the topic `conversations.rehomed`."""

from collections.abc import Sequence

from agents.decode import Job
from schemas.errors import Retryable, Unprocessable
from streams.kafka.producer import ConfirmedProducer, Outgoing, errors_of


class RehomedSink:
    """The original value under the text key; the first origin and key travel in headers."""

    def __init__(self, producer: ConfirmedProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def send(self, jobs: Sequence[Job]) -> list[Retryable | Unprocessable | None]:
        """See agents.analyst.Sender."""
        records = [Outgoing(job.text_key.encode(), job.source.value, job.rehoming_headers()) for job in jobs]
        return errors_of(await self._producer.send_all(self._topic, records))
