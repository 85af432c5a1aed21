"""Events: results into the topic `insights`, keyed by conversation id, with CloudEvents headers."""

from collections.abc import Sequence

from agents.decode import Job
from schemas.errors import Retryable, Unprocessable
from schemas.kafka import EventType, Header
from streams.kafka.producer import ConfirmedProducer, Outgoing, errors_of

_FIXED_HEADERS = [
    (Header.SPEC_VERSION, b"1.0"),
    (Header.TYPE, EventType.INSIGHT.encode()),
    (Header.CONTENT_TYPE, b"application/json"),
]


class EventSink:
    """One event for each conversation that did not die; a redelivered one has the same `ce_id`."""

    def __init__(self, producer: ConfirmedProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def send(self, jobs: Sequence[Job]) -> list[Retryable | Unprocessable | None]:
        """See agents.analyst.Sender."""
        return errors_of(await self._producer.send_all(self._topic, [_event(job) for job in jobs]))


def _event(job: Job) -> Outgoing:
    result = job.result
    tenant, id_, origin = result.tenant.encode(), result.id.encode(), result.origin
    headers = [
        *_FIXED_HEADERS,
        (Header.ID, b"%b:%b:%b" % (tenant, id_, result.occurred_at.isoformat().encode())),
        (Header.SOURCE, f"/{origin.topic}/{origin.partition}/{origin.offset}".encode()),
        (Header.TIME, result.analysed_at.isoformat().encode()),
        (Header.TENANT, tenant),
    ]
    if job.source.headers and (traceparent := job.header(Header.TRACEPARENT)) is not None:
        headers.append((Header.TRACEPARENT, traceparent.encode()))
    return Outgoing(id_, result.encode(), headers)
