"""The analyst: takes whole fetches of records through seven steps.

    1 decode       a record that is not a conversation becomes a dead letter
    2 prefilter    a conversation of little value ends as filtered
    3 repartition  a record whose text belongs to another partition is sent there, once
    4 cache        an equal text that was analysed before ends as cached
    5 single flight  equal texts share one call
    6 ask          Grok is asked, and the answer is kept in the table `answers`
    7 deliver      the row, then the event; a dead letter, then its row if an id could be read

Steps 1 to 5 are plain code over a whole fetch. What has to wait then waits for a place for a call, or in a
Stage, which works on all that has gathered as one batch. Knows nothing of Faust, Kafka's client or Postgres.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Generic, NamedTuple, Protocol, TypeVar

import structlog

from agents.analyse import Analysis, Answers
from agents.analyser import Analyser
from agents.decode import Job, KafkaRecord, Tracker, decode
from agents.limits.retry import Backoff
from agents.prefilter.low_value import low_value
from agents.stage import Stage
from agents.text_key import owner_partition
from schemas.call import PaidCall
from schemas.errors import Fatal, Retryable, Unprocessable
from schemas.insight import Usage
from schemas.outcome import Analysed, Cached, Dead, Filtered, dead_by, outcome_name
from schemas.result import ConversationResult

DELIVERY_BACKOFF = Backoff(base_s=0.1, cap_s=5.0)
#: Rows that another session has locked are tried again at this pace.
BLOCKED_BACKOFF = Backoff(base_s=0.1, cap_s=2.0)
MAX_ROWS_BATCH = 500
MAX_PRODUCE_BATCH = 1_000
#: Two statements in flight hide one round trip behind the other; more only wait for the same disk.
ROW_WRITERS = 2
#: Room for fewer records than this is not worth a fetch, nor is less than that share of all: with few places for calls
#: the others must not wait for the slowest.
MIN_FETCH_RECORDS = 100
MIN_FETCH_SHARE = 0.25
#: With this many records held back by unforeseen errors the worker stops: a defect hits them all, and the records
#: behind them are finished without being committed.
MAX_HELD_BACK = 20
#: What unfinished records may hold in memory, about; a conversation has at most a megabyte.
MAX_OPEN_BYTES = 128 * 1024 * 1024
#: What calls that no row accounts for get at a stop, to be stored; nothing else remembers them.
CALLS_STOP_S = 0.5

T = TypeVar("T")

_NO_USAGE = Usage()

log = structlog.get_logger()


class RowResults(NamedTuple, Generic[T]):
    """What became of a batch of rows; those that are no longer wanted are left out."""

    stored: list[T]
    refused: list[tuple[T, Exception]]
    blocked: list[T]


class Rows(Protocol):
    """Where results are stored; see streams.sinks.rows."""

    async def write(self, jobs: Sequence[Job]) -> RowResults[Job]:
        """Returns when each row is committed, refused by itself, or blocked by another session's lock.

        Raises Fatal when the database takes no rows at all.
        """

    async def write_calls(self, calls: Sequence[PaidCall]) -> None:
        """Returns when each call is committed that no row accounts for. Raises Fatal as `write` does."""


class Sender(Protocol):
    """A topic that jobs are sent to; see streams.sinks."""

    async def send(self, jobs: Sequence[Job]) -> Sequence[Retryable | Unprocessable | None]:
        """What became of each job: None once the brokers have it, Retryable, or Unprocessable for this very record."""


class Limit(Protocol):
    """How many records may die; see streams.worker.dead_letter_limit."""

    def admits(self, job: Job, dead: Dead) -> bool: ...

    def delivered(self, count: int) -> None: ...


class Observer(Protocol):
    """Counts what ends; must neither wait nor raise."""

    def ended(self, jobs: Sequence[Job]) -> None: ...

    def rehomed(self, count: int) -> None: ...


class Sinks(NamedTuple):
    """Every destination of a job."""

    rows: Rows
    events: Sender
    rehomed: Sender
    dead_letters: Sender


class AnalystOptions(NamedTuple):
    """Bounds and waits of one worker."""

    max_calls: int
    max_open_records: int
    cache_ttl: timedelta
    linger_s: float = 0.0


class Analyst:
    """Works on the records of one assignment after another; `partitions` is that of each input topic.

    `fail` is called with what must end the process: records are left open then, and are read again.
    """

    def __init__(
        self,
        analyser: Analyser,
        answers: Answers,
        sinks: Sinks,
        limit: Limit,
        observer: Observer,
        fail: Callable[[BaseException], None],
        now: Callable[[], datetime],
        options: AnalystOptions,
    ) -> None:
        self.partitions = 0
        self._analysis_version = analyser.version
        self._sinks = sinks
        self._limit = limit
        self._observer = observer
        self._fail = fail
        self._now = now
        self._max_open_records = options.max_open_records
        self._open_records = 0
        self._open_bytes = 0
        self._held_back = 0
        self._has_room = asyncio.Event()
        self._drain_ends_at_s = 0.0
        self._drain_timeout: asyncio.Timeout | None = None
        linger_s = options.linger_s
        self._calls = Stage("calls", self._store_calls, fail, max_batch=MAX_ROWS_BATCH, linger_s=linger_s)
        self._analysis = Analysis(
            analyser,
            answers,
            self._deliver,
            fail,
            self._calls.put,
            hold_back=self._hold_back,
            cache_ttl=options.cache_ttl,
            max_calls=options.max_calls,
            linger_s=linger_s,
            now=now,
        )
        self._rehoming = Stage("rehoming", self._send_rehomed, fail, max_batch=MAX_PRODUCE_BATCH, linger_s=linger_s)
        self._rows = Stage("rows", self._store, fail, max_batch=MAX_ROWS_BATCH, linger_s=linger_s, workers=ROW_WRITERS)
        self._blocked_rows = Stage("blocked_rows", self._store_blocked, fail, max_batch=MAX_ROWS_BATCH)
        self._events = Stage("events", self._send_events, fail, max_batch=MAX_PRODUCE_BATCH, linger_s=linger_s)
        self._dead_letters = Stage("dead_letters", self._send_dead_letters, fail, max_batch=MAX_PRODUCE_BATCH)
        self._stages: tuple[Stage, ...] = (  # type: ignore[type-arg]
            self._rehoming, self._analysis.keep_stage, self._rows, self._blocked_rows, self._events, self._dead_letters,
            self._calls,
        )  # fmt: skip

    @property
    def open_records(self) -> int:
        """Records that were taken and are not finished."""
        return self._open_records

    @property
    def held_back_records(self) -> int:
        """Open records of this assignment that an unforeseen error holds back."""
        return self._held_back

    async def check_none_held_back(self) -> None:
        """A health check. Raises Retryable with the number of records that are held back."""
        if self._held_back:
            raise Retryable(f"records held back by unforeseen errors: {self._held_back}; the log names them")

    async def start(self) -> None:
        """Starts the stages."""
        for stage in self._stages:
            stage.start()

    async def stop(self) -> None:
        """Stops the stages; what is still in them is read again by the next owner, except calls without an answer."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._calls.wait_idle(), CALLS_STOP_S)
        if self._calls.is_busy:
            log.warning("calls_not_stored", count=self._calls.size)
        await asyncio.gather(*(stage.stop() for stage in self._stages))

    async def room(self) -> int:
        """Waits until there is room for records; returns for how many."""
        least = min(MIN_FETCH_RECORDS, max(1, int(self._max_open_records * MIN_FETCH_SHARE)))
        while (room := self._max_open_records - self._open_records) < least or self._open_bytes >= MAX_OPEN_BYTES:
            self._has_room.clear()
            await self._has_room.wait()
        return room

    def take(self, tracker: Tracker, records: Sequence[KafkaRecord], *, rehomed: bool) -> None:
        """Opens a slot for each record, then takes them as far as they go without waiting.

        `records` are of one partition, in order; `rehomed` tells that they come from the topic of rehomed records.
        """
        tracker.admit([record.offset for record in records])
        jobs = [Job(tracker, record, was_rehomed=rehomed) for record in records]
        self._open_records += len(jobs)
        self._open_bytes += sum(job.size_bytes for job in jobs)

        decoded = self._decode(jobs)
        kept = self._prefilter(decoded)
        owned = self._repartition(kept)
        cached, missed = self._analysis.look_up(owned)
        calls = self._analysis.share(missed)
        self._analysis.ask(calls)
        self._deliver(cached)

    async def drain(self, within_s: float, keep_s: float) -> None:
        """Gives records in flight a bounded time to finish; answers that came are still kept, within `keep_s`."""
        loop = asyncio.get_running_loop()
        self._drain_ends_at_s = loop.time() + within_s
        await self._analysis.drain(within_s)
        try:
            async with asyncio.timeout(max(self._drain_ends_at_s - loop.time(), keep_s)) as self._drain_timeout:
                while busy := [stage for stage in self._stages if stage.is_busy and stage is not self._calls]:
                    await busy[0].wait_idle()
        except TimeoutError:
            log.warning("drain_incomplete", stages=[stage.name for stage in self._stages if stage.is_busy])
        finally:
            self._drain_timeout = None

    def shorten_drain(self, keep_s: float) -> None:
        """Cancels the calls of a drain that is going on, and leaves `keep_s` for their answers."""
        now_s = asyncio.get_running_loop().time()
        self._drain_ends_at_s = min(self._drain_ends_at_s, now_s)
        self._analysis.cancel_calls()
        if self._drain_timeout is not None and (until_s := self._drain_timeout.when()) is not None:
            self._drain_timeout.reschedule(min(until_s, now_s + keep_s))

    def forget(self) -> None:
        """The assignment is over and its trackers are revoked: nothing of it is open any more.

        Calls are still to be stored: no other worker knows of them. At most `max_calls` come with each assignment.
        """
        self._analysis.forget()
        for stage in self._stages:
            if stage is not self._calls:
                stage.clear()
        self._held_back = 0
        self._open_records = self._open_bytes = 0
        self._has_room.set()

    # --- steps 1 to 3

    def _decode(self, jobs: list[Job]) -> list[Job]:
        decoded = []
        for job in jobs:
            try:
                decode(job)
            except Unprocessable as error:
                self._set_dead(job, error)
            except Exception as error:
                self._hold_back([job], error)
            else:
                decoded.append(job)
        return decoded

    def _prefilter(self, jobs: list[Job]) -> list[Job]:
        kept, filtered = [], []
        for job in jobs:
            try:
                reason = low_value(job.text)
            except Exception as error:
                self._hold_back([job], error)
                continue
            if reason is None:
                kept.append(job)
            else:
                job.outcome = Filtered(reason)
                filtered.append(job)
        self._deliver(filtered)
        return kept

    def _repartition(self, jobs: list[Job]) -> list[Job]:
        """Equal texts must meet in one partition. A record is sent on once, and from then on analysed where it is."""
        owned: list[Job] = []
        others: list[Job] = []
        for job in jobs:
            here = job.was_rehomed or owner_partition(job.text_key.encode(), self.partitions) == job.tracker.partition
            (owned if here else others).append(job)
        self._rehoming.put(others)
        return owned

    async def _send_rehomed(self, jobs: list[Job]) -> None:
        async for sent, refused in _send(self._sinks.rehomed, jobs):
            self._observer.rehomed(len(sent))
            self._finish(sent)
            for job, error in refused:
                self._set_dead(job, error)

    # --- step 7

    def _deliver(self, jobs: list[Job]) -> None:
        """Sends jobs with an outcome on their way: rows first, but dead letters before their rows."""
        now = self._now()
        living = []
        for job in jobs:
            if isinstance(job.outcome, Dead):
                self._dead_letters.put([job])
            else:
                job.result = self._result(job, now)
                living.append(job)
        self._rows.put(living)

    def _set_dead(self, job: Job, error: Unprocessable) -> None:
        job.outcome = dead_by(error)
        self._dead_letters.put([job])

    def _hold_back(self, jobs: list[Job], error: Exception) -> None:
        """Leaves the slots open after a defect of ours, so that nothing behind them is committed; others continue.

        The next assignment or start reads the records again. Stops the worker at MAX_HELD_BACK of them.
        """
        for job in jobs:
            if not job.is_wanted:
                continue
            place = {"topic": job.source.topic, "partition": job.source.partition, "offset": job.source.offset}
            log.error("record_held_back", **place, exc_info=error)
            self._held_back += 1
            if self._held_back == MAX_HELD_BACK:
                self._fail(_too_many_held_back(error))

    async def _store(self, jobs: list[Job]) -> None:
        written = await self._sinks.rows.write(jobs)
        self._blocked_rows.put(written.blocked)
        self._stored(written)

    async def _store_blocked(self, jobs: list[Job]) -> None:
        attempt = 0
        while jobs:
            written = await self._sinks.rows.write(jobs)
            self._stored(written)
            jobs = written.blocked
            if jobs:
                await asyncio.sleep(BLOCKED_BACKOFF.delay_s(attempt, random.random))
                attempt += 1

    async def _store_calls(self, calls: list[PaidCall]) -> None:
        await self._sinks.rows.write_calls(calls)

    def _stored(self, written: RowResults[Job]) -> None:
        self._events.put(job for job in written.stored if not isinstance(job.outcome, Dead))
        self._finish_ended([job for job in written.stored if isinstance(job.outcome, Dead)])
        for job, error in written.refused:
            if isinstance(job.outcome, Dead):
                # The dead letter is durable and says why; a row that cannot be stored must not make it die again.
                log.warning("dead_without_row", reason=job.outcome.reason, error=type(error).__name__)
                if job.call is not None:
                    self._calls.put([job.call])
                self._finish_ended([job])
            elif isinstance(error, Unprocessable):
                self._set_dead(job, error)
            else:
                self._hold_back([job], error)

    async def _send_events(self, jobs: list[Job]) -> None:
        async for sent, refused in _send(self._sinks.events, jobs):
            self._finish_ended(sent)
            if refused:
                # The row says how it ended: a dead letter would be a second outcome of the same record.
                raise _event_refused(refused[0][1])

    async def _send_dead_letters(self, jobs: list[Job]) -> None:
        """Sends dead letters, then stores their rows; one beyond the limit is not sent, and its slot stays open."""
        admitted = [job for job in jobs if isinstance(job.outcome, Dead) and self._limit.admits(job, job.outcome)]
        async for sent, refused in _send(self._sinks.dead_letters, admitted):
            if refused:
                raise refused[0][1]
            self._finish_ended([job for job in sent if job.id is None])
            with_row = [job for job in sent if job.id is not None]
            now = self._now()
            for job in with_row:
                job.result = self._result(job, now)
            self._rows.put(with_row)

    def _finish_ended(self, jobs: list[Job]) -> None:
        ended = [job for job in jobs if job.is_wanted]
        self._observer.ended(ended)
        if living := sum(not isinstance(job.outcome, Dead) for job in ended):
            self._limit.delivered(living)
        self._finish(ended)

    def _finish(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.is_wanted:
                job.is_finished = True
                job.tracker.finish(job.source.offset)
                self._open_records -= 1
                self._open_bytes -= job.size_bytes
        self._has_room.set()

    def _result(self, job: Job, now: datetime) -> ConversationResult:
        outcome = job.outcome
        answer = outcome.answer if isinstance(outcome, Analysed | Cached) else None
        usage = outcome.answer.usage if isinstance(outcome, Analysed) else _NO_USAGE
        assert job.id is not None, "only a record with a readable id has a result"
        conversation = job.conversation
        return ConversationResult(
            tenant=job.tenant,
            id=job.id,
            outcome=outcome_name(outcome),
            occurred_at=job.occurred_at,
            received_at=job.received_at,
            analysed_at=now,
            origin=job.origin,
            reason=None if answer is not None else outcome.reason.value,  # type: ignore[union-attr]
            insight=answer.insight if answer is not None else None,
            source=None if conversation is None else conversation.source,
            text_key=None if conversation is None else job.text_key,
            analysis_version=self._analysis_version if answer is not None else None,
            model=answer.model if answer is not None else None,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost_usd_ticks=usage.cost_usd_ticks,
            metadata=None if conversation is None else conversation.metadata,
            repairs=job.repairs,
        )


async def _send(
    sender: Sender, jobs: Sequence[Job]
) -> AsyncIterator[tuple[list[Job], list[tuple[Job, Unprocessable]]]]:
    """Sends jobs until the brokers have all of them: yields what was sent, and what is refused for good."""
    attempt = 0
    while wanted := [job for job in jobs if job.is_wanted]:
        results = list(zip(wanted, await sender.send(wanted), strict=True))
        sent = [job for job, error in results if error is None]
        yield sent, [(job, error) for job, error in results if isinstance(error, Unprocessable)]
        jobs = [job for job, error in results if isinstance(error, Retryable)]
        if jobs:
            await asyncio.sleep(DELIVERY_BACKOFF.delay_s(attempt, random.random))
            attempt += 1


def _too_many_held_back(error: Exception) -> Fatal:
    why = f"{MAX_HELD_BACK} records are held back, the latest by {type(error).__name__}"
    hint = "report what the log says under record_held_back; the records are read again by the next start"
    return Fatal("unforeseen errors keep records from being processed", why, hint)


def _event_refused(error: Unprocessable) -> Fatal:
    hint = "check max.message.bytes of the topic insights, then restart the worker: it reads the record again"
    return Fatal("an event cannot be sent", str(error), hint)
