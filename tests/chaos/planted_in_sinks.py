"""Mistakes on the way to rows, events, dead letters and the owner partition."""

from collections.abc import Mapping, Sequence

import structlog

import agents.decode
import streams.sinks.rows
from agents.analyst import Analyst, RowResults
from agents.decode import Job, Tracker
from schemas.errors import Retryable, Unprocessable
from schemas.kafka import Origin
from streams.sinks.dead_letters import DeadLetterSink
from streams.sinks.events import EventSink
from streams.sinks.rehomed import RehomedSink
from streams.sinks.rows import RowSink
from tests.chaos.planting import in_background, replace

Deliveries = list[Retryable | Unprocessable | None]

log = structlog.get_logger()


class _FinishedTracker:
    """A tracker for a record whose offset was finished too early: finishing it again does nothing."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.partition = tracker.partition

    @property
    def is_revoked(self) -> bool:
        return self._tracker.is_revoked

    def finish(self, offset: int) -> None:
        pass


def commit_before_sink() -> None:
    """A record counts as finished when it is handed to the sinks, before any of them has it."""
    deliver = Analyst._deliver

    def deliver_and_finish(analyst: Analyst, jobs: list[Job]) -> None:
        deliver(analyst, jobs)
        for job in jobs:
            job.tracker.finish(job.source.offset)
            job.tracker = _FinishedTracker(job.tracker)  # type: ignore[assignment]

    replace(Analyst, "_deliver", deliver_and_finish)


def event_not_awaited() -> None:
    """Events are sent in the background, and nothing waits for their confirmation."""
    send = EventSink.send

    async def send_in_background(sink: EventSink, jobs: Sequence[Job]) -> Deliveries:
        in_background(lambda: send(sink, jobs))
        return [None] * len(jobs)

    replace(EventSink, "send", send_in_background)


def row_not_awaited() -> None:
    """Rows are written in the background, and nothing waits for their commit."""
    write = RowSink.write

    async def write_in_background(sink: RowSink, jobs: Sequence[Job]) -> RowResults:
        in_background(lambda: write(sink, jobs))
        return RowResults(list(jobs), [], [])

    replace(RowSink, "write", write_in_background)


def plain_insert() -> None:
    """Rows are inserted without ON CONFLICT, so a redelivered record is refused by the primary key."""
    statement = streams.sinks.rows._UPSERT.rpartition("ON CONFLICT")[0]
    replace(streams.sinks.rows, "_UPSERT", statement)


def table_without_key() -> None:
    """The table has lost its primary key, and a redelivered record is inserted once more."""
    start = RowSink.start

    async def start_and_drop_the_key(sink: RowSink) -> None:
        await start(sink)
        connection = await sink._database.connect("chaos")
        await connection.execute("ALTER TABLE insights DROP CONSTRAINT IF EXISTS insights_pkey")
        await connection.close()

    replace(RowSink, "start", start_and_drop_the_key)
    plain_insert()


def origin_of_the_copy() -> None:
    """Rows and events of rehomed records name the copy's place instead of the record's."""

    def first_origin(headers: Mapping[str, bytes]) -> Origin | None:
        return None

    replace(agents.decode, "_first_origin", first_origin)


def row_means_done() -> None:
    """A record whose row exists counts as delivered, though its event may be missing."""
    store = Analyst._store

    async def store_new_ones(analyst: Analyst, jobs: list[Job]) -> None:
        query = "SELECT conversation_id FROM insights WHERE conversation_id = ANY($1)"
        try:
            rows = await analyst._sinks.rows._pool.fetch(query, [job.id for job in jobs])  # type: ignore[attr-defined]
        except Exception:  # the database is away: the careless developer stores them
            rows = []
        known = {row["conversation_id"] for row in rows}
        analyst._finish_ended([job for job in jobs if job.id in known])
        await store(analyst, [job for job in jobs if job.id not in known])

    replace(Analyst, "_store", store_new_ones)


def rehomed_not_awaited() -> None:
    """A rehomed record is finished before the brokers have its copy."""
    send = RehomedSink.send

    async def send_in_background(sink: RehomedSink, jobs: Sequence[Job]) -> Deliveries:
        in_background(lambda: send(sink, jobs))
        return [None] * len(jobs)

    replace(RehomedSink, "send", send_in_background)


def dead_letter_dropped_on_error() -> None:
    """An error on the way to the dead letters, such as a record without an ID, is logged and forgotten."""
    send = DeadLetterSink.send

    async def send_or_log(sink: DeadLetterSink, jobs: Sequence[Job]) -> Deliveries:
        try:
            log.info("dead_letters", id_chars=[len(job.id) for job in jobs])
            return await send(sink, jobs)
        except Exception as error:
            log.error("dead_letters_failed", error=type(error).__name__)
            return [None] * len(jobs)

    replace(DeadLetterSink, "send", send_or_log)
