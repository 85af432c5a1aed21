"""Dead letters: the original record into the topic `conversations.dlq`, with the reason in its headers."""

from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from agents.decode import Job
from schemas.dead_letter import DeadLetter
from schemas.errors import Retryable, Unprocessable
from schemas.outcome import Dead
from streams.kafka.producer import ConfirmedProducer, Outgoing, errors_of

#: What is kept of a value that the topic does not take whole. The record itself stays at its origin for as long as its
#: topic keeps it.
TRUNCATED_BYTES = 512 * 1024
TRUNCATED = "dlq.truncated_from_bytes"

log = structlog.get_logger()


class DeadLetterSink:
    """Keyed by conversation id where one could be read, else by the original key.

    `producer` compresses: a record that came compressed may be many times the topic's largest size.
    """

    def __init__(self, producer: ConfirmedProducer, topic: str, now: Callable[[], datetime]) -> None:
        self._producer = producer
        self._topic = topic
        self._now = now

    async def send(self, jobs: Sequence[Job]) -> list[Retryable | Unprocessable | None]:
        """See agents.analyst.Sender.

        A value that does not fit even compressed is cut, and its size is put into the header dlq.truncated_from_bytes:
        one record must neither be lost without a trace nor stop its partition.
        """
        records = [self._record(job) for job in jobs]
        deliveries = await self._producer.send_all(self._topic, records)
        for index, delivery in enumerate(deliveries):
            if isinstance(delivery, Unprocessable):
                [deliveries[index]] = await self._producer.send_all(
                    self._topic, [_truncated(jobs[index], records[index])]
                )
        return errors_of(deliveries)

    def _record(self, job: Job) -> Outgoing:
        assert isinstance(job.outcome, Dead), "only the dead are sent here"
        dead_letter = DeadLetter(
            key=job.key,
            value=job.source.value,
            headers=job.headers,
            reason=job.outcome.reason,
            detail=job.outcome.detail,
            origin=job.origin,
            received_at=job.received_at,
            at=self._now(),
            conversation_id=job.id,
        )
        key = dead_letter.key if job.id is None else job.id.encode()
        # A record of neither key nor value cannot be produced, though a foreign producer may have made one.
        value = b"" if key is None and dead_letter.value is None else dead_letter.value
        return Outgoing(key, value, dead_letter.headers_out())


def _truncated(job: Job, record: Outgoing) -> Outgoing:
    value = record.value or b""
    log.error("dead_letter_truncated", partition=job.origin.partition, size_bytes=len(value))
    return Outgoing(record.key, value[:TRUNCATED_BYTES], [*record.headers, (TRUNCATED, b"%d" % len(value))])
