"""Mistakes on the way to rows, events, dead letters and the home partition."""

from contextlib import suppress

import asyncpg
import streams.pipeline.record
import streams.sinks.postgres
import structlog
from streams.pipeline.attempts import IsAlive
from streams.pipeline.delivery import Delivery
from streams.pipeline.envelope import Envelope
from streams.pipeline.home import Rehoming
from streams.pipeline.record import Headers, Record
from streams.sinks.postgres import PostgresSink
from streams.sinks.results import ResultsSink

from schemas.dead_letter import DeadLetter
from schemas.kafka import Origin
from schemas.outcome import Outcome
from schemas.result import ConversationResult
from streams.sinks.dead_letters import DeadLetterSink
from tests.chaos.planting import in_background, replace

log = structlog.get_logger()


def commit_before_sink() -> None:
    """Delivery runs in the background, so the record counts as finished before any sink has it."""
    deliver = Delivery.deliver

    async def deliver_in_background(
        delivery: Delivery, record: Record, envelope: Envelope | None, outcome: Outcome, is_alive: IsAlive
    ) -> Outcome:
        in_background(lambda: deliver(delivery, record, envelope, outcome, is_alive))
        return outcome

    replace(Delivery, "deliver", deliver_in_background)


def event_not_awaited() -> None:
    """Events are left to a background flush that nobody waits for."""
    send = ResultsSink.send

    async def send_in_background(sink: ResultsSink, result: ConversationResult, traceparent: str | None) -> None:
        in_background(lambda: send(sink, result, traceparent))

    replace(ResultsSink, "send", send_in_background)


def row_not_awaited() -> None:
    """Rows are written in the background, and a failed batch is nobody's business."""
    write = PostgresSink.write

    async def write_in_background(sink: PostgresSink, result: ConversationResult) -> None:
        in_background(lambda: write(sink, result))

    replace(PostgresSink, "write", write_in_background)


def plain_insert() -> None:
    """Rows are inserted without ON CONFLICT, so a redelivered record is refused by the primary key."""
    statement = streams.sinks.postgres._UPSERT.partition("ON CONFLICT")[0]
    replace(streams.sinks.postgres, "_UPSERT", statement)


def table_without_key() -> None:
    """The table has lost its primary key, and a redelivered record is inserted once more."""
    start = PostgresSink.start

    async def start_and_drop_the_key(sink: PostgresSink) -> None:
        await start(sink)
        connection = await asyncpg.connect(sink._database_url)
        await connection.execute("ALTER TABLE insights DROP CONSTRAINT IF EXISTS insights_pkey")
        await connection.close()

    replace(PostgresSink, "start", start_and_drop_the_key)
    plain_insert()


def origin_of_the_copy() -> None:
    """Rows and events of records that were sent home name the copy's place instead of the record's."""

    def place_of_the_copy(headers: Headers, origin: Origin, key: bytes | None) -> tuple[Origin, bytes | None]:
        return origin, key

    replace(streams.pipeline.record, "_first_reading", place_of_the_copy)


def row_means_done() -> None:
    """A record whose row stands there is taken for delivered, though its event may be missing."""
    deliver = Delivery.deliver

    async def has_row(delivery: Delivery, envelope: Envelope) -> bool:
        known = "SELECT true FROM insights WHERE tenant = $1 AND conversation_id = $2"
        with suppress(Exception):
            return bool(await delivery._rows._pool.fetchval(known, envelope.tenant, envelope.id))  # type: ignore[attr-defined]
        return False

    async def deliver_once(
        delivery: Delivery, record: Record, envelope: Envelope | None, outcome: Outcome, is_alive: IsAlive
    ) -> Outcome:
        if envelope is not None and await has_row(delivery, envelope):
            return outcome
        return await deliver(delivery, record, envelope, outcome, is_alive)

    replace(Delivery, "deliver", deliver_once)


def rehomed_not_awaited() -> None:
    """A record sent home is finished before the brokers have its copy."""
    send_home = Rehoming.send_home

    async def send_in_background(rehoming: Rehoming, record: Record, text_key: str) -> None:
        in_background(lambda: send_home(rehoming, record, text_key))

    replace(Rehoming, "send_home", send_in_background)


def letter_dropped_on_error() -> None:
    """An error on the way to the dead letters, such as of a record without an id, is logged and forgotten."""
    send = DeadLetterSink.send

    async def send_or_log(sink: DeadLetterSink, letter: DeadLetter, conversation_id: str | None) -> None:
        try:
            log.info("dead_letter", id_bytes=len(conversation_id.encode()))  # type: ignore[union-attr]
            await send(sink, letter, conversation_id)
        except Exception as error:
            log.error("dead_letter_failed", error=type(error).__name__)

    replace(DeadLetterSink, "send", send_or_log)
