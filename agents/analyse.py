"""Steps 4 to 6: look answers up, let equal texts share one call, ask, and keep the answer before anyone gets it."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import msgspec
import structlog

from agents.analyser import Analyser
from agents.decode import Job, as_time
from agents.limits.retry import Backoff, NoLongerWanted, retry
from agents.stage import Stage
from schemas.call import CallOutcome, PaidCall, UnansweredCall
from schemas.errors import Fatal, Unprocessable
from schemas.insight import Answer, Usage
from schemas.outcome import Analysed, Cached, Dead, dead_by

CALL_BACKOFF = Backoff(base_s=0.2, cap_s=30.0)
KEEP_BACKOFF = Backoff(base_s=0.1, cap_s=5.0)
#: Answers kept in one go: one changelog batch and one RocksDB batch for each partition among them.
MAX_KEEP_BATCH = 1_000
#: Answers that could not be kept are remembered up to this number; each is about a kilobyte.
MAX_UNKEPT = 10_000
#: How far clocks may differ: those of two workers, and a producer's (Kafka admits stamps up to an hour ahead).
WORKER_CLOCK_SKEW = timedelta(minutes=1)
PRODUCER_CLOCK_SKEW = timedelta(hours=1)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answer).decode

log = structlog.get_logger()


class Flight:
    """One text being asked about, and the jobs that share the call."""

    __slots__ = ("answer", "defect", "jobs", "key", "value")

    def __init__(self, key: bytes, job: Job) -> None:
        self.key = key
        self.jobs = [job]
        self.answer: Answer | None = None
        #: The answer as the table holds it.
        self.value = b""
        #: The unforeseen error that ended the call. The flight stays, so that no equal text is asked about again.
        self.defect: Exception | None = None

    @property
    def partition(self) -> int:
        """The shard that keeps the answer."""
        return self.jobs[0].tracker.partition

    @property
    def is_wanted(self) -> bool:
        """False once every partition that waits for the answer was revoked."""
        return any(job.is_wanted for job in self.jobs)


class Answers(Protocol):
    """The table `answers`, by partition; see streams.engine.answers_table."""

    def get(self, partition: int, key: bytes) -> bytes | None:
        """The stored value. Raises LookupError when the partition is not assigned here."""

    async def put(self, flights: list[Flight]) -> list[Flight]:
        """Returns when the changelog has the answers, and then the local shards.

        Those that the changelog does not take now are returned. Raises Fatal when a shard cannot be written.
        """


class Analysis:
    """One for a worker: it knows which texts are being asked about, so that no text is paid for twice.

    `deliver` gets jobs whose outcome is set; the answer of an analysed or cached one is in the changelog by then.
    If the analyser is paid, `job.call` has the call that gave it, and `store_calls` gets those that no job names.
    `hold_back` gets jobs whose call ended with an unforeseen error, and the error.
    """

    def __init__(
        self,
        analyser: Analyser,
        answers: Answers,
        deliver: Callable[[list[Job]], None],
        fail: Callable[[BaseException], None],
        store_calls: Callable[[list[PaidCall]], None],
        *,
        hold_back: Callable[[list[Job], Exception], None],
        cache_ttl: timedelta,
        max_calls: int,
        linger_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._analyser = analyser
        self._answers = answers
        self._deliver = deliver
        self._fail = fail
        self._hold_back = hold_back
        self._store_calls = store_calls
        self._cache_ttl = cache_ttl
        self._max_calls = max_calls
        self._now = now
        #: A call that ended before this may be another worker's; set by the first look-up of an assignment.
        self._own_since: datetime | None = None
        self._key_suffix = f":{analyser.version}"
        self._flights: dict[bytes, Flight] = {}
        self._to_ask: deque[Flight] = deque()
        #: One task for each place for a call that is taken, and those of them whose call has begun.
        self._askers: set[asyncio.Task[None]] = set()
        self._calling: set[asyncio.Task[None]] = set()
        #: Answered and not kept yet; with as many of these as there are places, no call begins. A worker that is killed
        #: then pays again for no more than twice its places, and an outage of the changelog is not paid for on and on.
        self._answered: set[Flight] = set()
        self._is_draining = False
        #: Answers that were paid for and are not kept yet, the oldest first.
        self._unkept: dict[bytes, Answer] = {}
        self.keep_stage = Stage("answers", self._keep, fail, max_batch=MAX_KEEP_BATCH, linger_s=linger_s)

    def look_up(self, jobs: list[Job]) -> tuple[list[Job], list[Job]]:
        """Step 4, cache: returns the jobs whose text was analysed before, with their outcome, and the others."""
        hits: list[Job] = []
        misses: list[Job] = []
        now = self._now()
        oldest = now - self._cache_ttl
        if self._own_since is None:
            self._own_since = now + WORKER_CLOCK_SKEW
        for job in jobs:
            key = self._key(job)
            answer = None if key in self._flights else self._stored(job.tracker.partition, key)
            if answer is None:
                misses.append(job)
                continue
            call = self._answered_call(job, answer) if self._may_lack_call(job, answer) else None
            if answer.analysed_at < oldest:
                self._store_calls([call] if call else [])
                misses.append(job)
            else:
                self._unkept.pop(key, None)  # kept by now, if not by us
                job.outcome, job.call = Cached(answer), call
                hits.append(job)
        return hits, misses

    def share(self, jobs: list[Job]) -> list[Flight]:
        """Step 5, single flight: jobs join the call for their text; returns the calls that are still to be made."""
        begun = []
        for job in jobs:
            key = self._key(job)
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = Flight(key, job)
                begun.append(flight)
            elif flight.defect is not None:
                self._hold_back([job], flight.defect)
            else:
                flight.jobs.append(job)
        return begun

    def ask(self, flights: list[Flight]) -> None:
        """Step 6, ask: each as soon as there is a place for a call; an answer paid for before is only kept again."""
        for flight in flights:
            flight.answer = self._unkept.get(flight.key)
        self._to_keep([flight for flight in flights if flight.answer is not None])
        self._to_ask.extend(flight for flight in flights if flight.answer is None)
        self._fill_places()

    async def drain(self, within_s: float) -> None:
        """Starts no new call, and gives those in flight a bounded time before they are cancelled.

        Calls that are cancelled may be billed all the same. Answers that came are in the stage that keeps them.
        """
        self._is_draining = True
        self._to_ask.clear()
        for asker in self._askers - self._calling:
            asker.cancel()
        if self._calling:
            await asyncio.wait(set(self._calling), timeout=within_s)
        askers = set(self._askers)
        self.cancel_calls()
        await asyncio.gather(*askers, return_exceptions=True)

    def cancel_calls(self) -> None:
        """Cancels every call, during a drain."""
        for asker in self._askers:
            asker.cancel()

    def forget(self) -> None:
        """Forgets the flights of the assignment that is over, and allows calls again in the next one."""
        for flight in self._answered:  # this worker may have paid for what no record of it will account for
            self._store_answered(flight)
        self._flights.clear()
        self._answered.clear()
        self._own_since = None
        self._is_draining = False

    def _fill_places(self) -> None:
        for _ in range(min(len(self._to_ask), self._max_calls - max(len(self._askers), len(self._answered)))):
            asker = asyncio.create_task(self._ask_on(), name="asker")
            self._askers.add(asker)
            asker.add_done_callback(self._asker_ended)

    async def _ask_on(self) -> None:
        """One place for a call: asks about one text after the other while any waits and answers are being kept."""
        asker = asyncio.current_task()
        assert asker is not None, "runs in a task of its own"
        try:
            while self._to_ask and len(self._answered) < self._max_calls:
                await self._ask_one(self._to_ask.popleft(), asker)
        finally:
            # In the very step that found nothing waiting: whatever comes next must not count on this place.
            self._askers.discard(asker)

    def _asker_ended(self, asker: "asyncio.Task[None]") -> None:
        self._askers.discard(asker)  # one that was cancelled before its first step is still there
        if not asker.cancelled() and (error := asker.exception()) is not None:
            self._fail(error)

    async def _ask_one(self, flight: Flight, asker: "asyncio.Task[None]") -> None:
        call, is_worth = partial(self._call, flight, asker), partial(self._is_worth, flight)
        try:
            flight.answer = await retry(call, CALL_BACKOFF, is_worth)
        except NoLongerWanted:
            self._drop(flight)
        except asyncio.CancelledError:
            self._drop(flight)
            raise
        except Fatal as error:
            self._drop(flight)
            self._fail(error)
        except Unprocessable as error:
            self._refuse(flight, dead_by(error))
        except Exception as error:  # a defect of ours that did not pass: no fault of the text, so it does not die
            flight.defect = error
            self._hold_back(flight.jobs, error)
        else:
            self._remember(flight)
            self._to_keep([flight])

    async def _call(self, flight: Flight, asker: "asyncio.Task[None]") -> Answer:
        self._calling.add(asker)
        try:
            return await self._analyser.analyse(flight.jobs[0].text, partial(self._ended_unanswered, flight))
        finally:
            self._calling.discard(asker)

    def _is_worth(self, flight: Flight) -> bool:
        return flight.is_wanted and not self._is_draining

    def _refuse(self, flight: Flight, outcome: Dead) -> None:
        self._drop(flight)
        for job in flight.jobs:
            job.outcome = outcome
        self._deliver(flight.jobs)

    def _to_keep(self, flights: list[Flight]) -> None:
        for flight in flights:
            flight.value = _encode(flight.answer)
        self._answered.update(flights)
        self.keep_stage.put(flights)

    async def _keep(self, flights: list[Flight]) -> None:
        """Retries until the answers are kept: asking again because keeping failed would pay for the texts twice.

        An answer that no job waits for any more is tried once, and stays among the unkept if that fails.
        """
        attempt = 0
        while flights:
            refused = await self._answers.put(flights)
            self._kept([flight for flight in flights if flight not in refused] if refused else flights)
            flights = [flight for flight in refused if flight.is_wanted]
            given_up = [flight for flight in refused if not flight.is_wanted]
            self._answered.difference_update(given_up)
            for flight in given_up:
                self._store_answered(flight)
            self._fill_places()
            if flights:
                await asyncio.sleep(KEEP_BACKOFF.delay_s(attempt, random.random))
                attempt += 1

    def _kept(self, flights: list[Flight]) -> None:
        self._answered.difference_update(flights)
        jobs: list[Job] = []
        for flight in flights:
            self._unkept.pop(flight.key, None)
            self._drop(flight)
            assert flight.answer is not None, "only an answered flight is kept"
            analysed, cached = Analysed(flight.answer), Cached(flight.answer)
            wanted = [job for job in flight.jobs if job.is_wanted]
            for job in wanted:
                job.outcome = cached
            if wanted:  # the one who has waited longest accounts for the call
                wanted[0].outcome = analysed
                wanted[0].call = self._answered_call(wanted[0], flight.answer)
            else:
                self._store_answered(flight)
            jobs += wanted
        self._deliver(jobs)

    def _may_lack_call(self, job: Job, answer: Answer) -> bool:
        """Whether the worker that paid may have ended before it wrote the row of this very record.

        The answer is older than this assignment then, and the record older than the answer. A call is stored once.
        """
        assert self._own_since is not None, "look_up sets it first"
        if answer.analysed_at >= self._own_since:
            return False
        return min(job.received_at, as_time(job.source.timestamp)) < answer.analysed_at + PRODUCER_CLOCK_SKEW

    def _answered_call(self, job: Job, answer: Answer) -> PaidCall | None:
        if not self._analyser.is_paid:
            return None
        return self._paid_call(job, "answered", answer.model, answer.analysed_at, answer.usage)

    def _store_answered(self, flight: Flight) -> None:
        assert flight.answer is not None, "called with an answer at hand"
        call = self._answered_call(flight.jobs[0], flight.answer)
        if call is not None:
            self._store_calls([call])

    def _ended_unanswered(self, flight: Flight, call: UnansweredCall) -> None:
        self._store_calls([self._paid_call(flight.jobs[0], call.outcome, call.model, call.ended_at, call.usage)])

    def _paid_call(self, job: Job, outcome: CallOutcome, model: str, ended_at: datetime, usage: Usage) -> PaidCall:
        assert job.id is not None, "only a decoded record is asked about"
        return PaidCall(
            job.tenant,
            job.text_key,
            self._analyser.version,
            ended_at,
            job.id,
            outcome,
            model,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cost_usd_ticks,
        )

    def _remember(self, flight: Flight) -> None:
        """While brokers are down, a partition may be taken away and come back: the answer is still here then."""
        assert flight.answer is not None, "called with an answer at hand"
        self._unkept[flight.key] = flight.answer
        if len(self._unkept) > MAX_UNKEPT:
            del self._unkept[next(iter(self._unkept))]

    def _drop(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def _key(self, job: Job) -> bytes:
        return (job.text_key + self._key_suffix).encode()

    def _stored(self, partition: int, key: bytes) -> Answer | None:
        """The stored answer; one of an older shape counts as none."""
        value = self._answers.get(partition, key)
        try:
            return None if value is None else _decode(value)
        except msgspec.DecodeError:
            return None
