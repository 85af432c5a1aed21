"""An outcome becomes durable: the row, then the event; for the dead the letter, then the row."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import structlog

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.errors import Fatal, InsightsError, Unprocessable
from schemas.insight import Usage
from schemas.kafka import Header
from schemas.outcome import Analysed, Cached, Dead, Filtered, Outcome, outcome_name
from schemas.result import ConversationResult
from streams.pipeline.attempts import IsAlive, until_done
from streams.pipeline.envelope import Envelope
from streams.pipeline.record import Record

Now = Callable[[], datetime]

log = structlog.get_logger()


class Rows(Protocol):
    """Where results are stored; see streams.sinks.postgres."""

    async def write(self, result: ConversationResult) -> None: ...


class Events(Protocol):
    """Where results are announced; see streams.sinks.results."""

    async def send(self, result: ConversationResult, traceparent: str | None) -> None: ...


class LetterHeld(InsightsError):
    """The letter must not be sent, for too many were: the record stays unfinished, and is read again by the next
    worker."""


class Letters(Protocol):
    """Where the dead go; see streams.sinks.dead_letters."""

    async def send(self, letter: DeadLetter, conversation_id: str | None) -> None:
        """Raises LetterHeld when the dead-letter limit is reached."""


class Delivery:
    """Each step is retried on its own, so that a slow database does not repeat events."""

    def __init__(self, rows: Rows, events: Events, letters: Letters, analysis_version: str, now: Now) -> None:
        self._rows = rows
        self._events = events
        self._letters = letters
        self._analysis_version = analysis_version
        self._now = now

    async def deliver(self, record: Record, envelope: Envelope | None, outcome: Outcome, is_alive: IsAlive) -> Outcome:
        """Returns, when all of it is confirmed, the outcome that was: dead if the row cannot be stored.

        Raises LetterHeld, Fatal (also when the event of a stored row cannot be sent) and AssignmentOver, and then the
        record is unfinished.

        `envelope` is None only for what could not be decoded: there is no id then, so no row either.
        """
        if not isinstance(outcome, Dead):
            assert envelope is not None, "only an opened envelope ends otherwise than dead"
            outcome = await self._deliver_living(record, envelope, outcome, is_alive)
        if isinstance(outcome, Dead):
            await self._deliver_dead(record, envelope, outcome, is_alive)
        return outcome

    async def _deliver_living(
        self, record: Record, envelope: Envelope, outcome: Analysed | Cached | Filtered, is_alive: IsAlive
    ) -> Outcome:
        result = self._result(record, envelope, outcome)
        traceparent = record.header(Header.TRACEPARENT)
        try:
            await until_done(lambda: self._rows.write(result), is_alive)
        except Unprocessable as error:
            return Dead(DeadLetterReason(error.reason), error.detail)
        try:
            await until_done(lambda: self._events.send(result, traceparent), is_alive)
        except Unprocessable as error:
            # The row tells how it ended: a letter would be a second end of the same record.
            hint = "check max.message.bytes of the topic insights, then restart the worker: it reads the record again"
            raise Fatal("an event cannot be sent", str(error), hint) from error
        return outcome

    async def _deliver_dead(self, record: Record, envelope: Envelope | None, outcome: Dead, is_alive: IsAlive) -> None:
        letter = DeadLetter(
            key=record.key,
            value=record.value,
            headers=record.headers,
            reason=outcome.reason,
            detail=outcome.detail,
            origin=record.origin,
            received_at=record.received_at,
            at=self._now(),
        )
        conversation_id = envelope.id if envelope is not None else None
        await until_done(lambda: self._letters.send(letter, conversation_id), is_alive)
        if envelope is not None:
            result = self._result(record, envelope, outcome)
            try:
                await until_done(lambda: self._rows.write(result), is_alive)
            except Unprocessable as error:
                # The letter is durable and says why; a row that cannot be stored must not make the record die again.
                log.warning("dead_without_row", reason=outcome.reason, error=error.reason)

    def _result(self, record: Record, envelope: Envelope, outcome: Outcome) -> ConversationResult:
        answer = outcome.answer if isinstance(outcome, Analysed | Cached) else None
        usage = outcome.answer.usage if isinstance(outcome, Analysed) else Usage()
        return ConversationResult(
            tenant=envelope.tenant,
            id=envelope.id,
            outcome=outcome_name(outcome),
            occurred_at=envelope.occurred_at,
            received_at=record.received_at,
            analysed_at=self._now(),
            origin=record.origin,
            reason=None if isinstance(outcome, Analysed | Cached) else outcome.reason.value,
            insight=answer.insight if answer is not None else None,
            source=envelope.conversation.source,
            text_key=envelope.text_key,
            analysis_version=self._analysis_version if answer is not None else None,
            model=answer.model if answer is not None else None,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost_usd_ticks=usage.cost_usd_ticks,
        )
