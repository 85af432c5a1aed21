"""Sends results to the insights topic, keyed by conversation id, with CloudEvents headers."""

from schemas.kafka import EventType, Header
from schemas.result import ConversationResult
from streams.sinks.producer import ConfirmedProducer


class ResultsSink:
    """One event for each conversation that did not die. A redelivery repeats it: consumers tell by id and time."""

    def __init__(self, producer: ConfirmedProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def send(self, result: ConversationResult, traceparent: str | None) -> None:
        """Returns when the brokers have the event. Raises Retryable."""
        headers = {
            Header.SPEC_VERSION: "1.0",
            Header.ID: f"{result.tenant}:{result.id}:{result.occurred_at.isoformat()}",
            Header.TYPE: EventType.INSIGHT,
            Header.SOURCE: f"/{result.origin.topic}/{result.origin.partition}/{result.origin.offset}",
            Header.TIME: result.analysed_at.isoformat(),
            Header.CONTENT_TYPE: "application/json",
            Header.TENANT: result.tenant,
        }
        if traceparent is not None:
            headers[Header.TRACEPARENT] = traceparent
        await self._producer.send(
            self._topic,
            key=result.id.encode(),
            value=result.encode(),
            headers=[(name, value.encode()) for name, value in headers.items()],
        )
