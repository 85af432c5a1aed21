"""The recipe for one text that passed the prefilter: look up, share a call under way, ask, keep the answer."""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from agents.analyser import Analyser
from agents.cache import AnswerCache
from agents.guards.backoff import Backoff
from agents.guards.single_flight import SingleFlight
from schemas.errors import Retryable
from schemas.insight import Answer
from schemas.outcome import Analysed, Cached

KEEP_BACKOFF = Backoff(base_s=0.1, cap_s=5.0)
#: How long a call that nobody waits for any more may take to keep its answer: a broker that is down holds nobody up.
KEEP_S = 1.0
#: Answers that could not be kept are remembered up to so many; each is about a kilobyte.
MAX_UNKEPT = 10_000

log = structlog.get_logger()


class Recipe:
    """One for a worker: it knows which texts are being asked about, so that no text is paid for twice."""

    def __init__(
        self,
        analyser: Analyser,
        cache_ttl: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._analyser = analyser
        self._cache_ttl = cache_ttl
        self._now = now
        self._flights: SingleFlight[str, Answer] = SingleFlight()
        #: Paid for and not kept yet, the oldest first.
        self._unkept: dict[str, Answer] = {}

    @property
    def version(self) -> str:
        """The analysis version that answers are asked for and kept under."""
        return self._analyser.version

    async def analyse(self, text: str, text_key: str, cache: AnswerCache) -> Analysed | Cached:
        """Analysed for the one whose call it was, Cached for every other; the answer is kept before either returns.

        Raises what the analyser raises (Retryable, Unprocessable, Fatal), and what the cache raises but Retryable.
        """
        key = f"{text_key}:{self.version}"
        stored = self._fresh(cache.get(key))
        if stored is not None:
            self._unkept.pop(key, None)  # kept by now, if not by us
            return Cached(stored)
        answer, led = await self._flights.run(key, lambda: self._ask(text, key, cache))
        return Analysed(answer) if led else Cached(answer)

    async def _ask(self, text: str, key: str, cache: AnswerCache) -> Answer:
        answer = self._fresh(self._unkept.get(key))
        if answer is None:
            answer = await self._analyser.analyse(text)
            self._remember(key, answer)
        keeping = asyncio.ensure_future(self._keep(cache, key, answer))
        try:
            await asyncio.shield(keeping)
        except asyncio.CancelledError:
            # The answer is paid for: it is kept all the same, so that whoever gets the text next finds it.
            try:
                await asyncio.wait({keeping}, timeout=KEEP_S)
            finally:
                keeping.cancel()
                keeping.add_done_callback(_tell_failure)
            raise
        return answer

    async def _keep(self, cache: AnswerCache, key: str, answer: Answer) -> None:
        """Until it is kept: asking anew because keeping failed would pay for the text again."""
        attempt = 0
        while True:
            try:
                await cache.put(key, answer)
            except Retryable as error:
                least_s = error.retry_after_s or 0.0
            else:
                self._unkept.pop(key, None)
                return
            await asyncio.sleep(least_s + KEEP_BACKOFF.delay_s(attempt, random.random))
            attempt += 1

    def _remember(self, key: str, answer: Answer) -> None:
        """While brokers are down, a partition may be taken away and come back: the answer is still here then."""
        self._unkept[key] = answer
        if len(self._unkept) > MAX_UNKEPT:
            del self._unkept[next(iter(self._unkept))]

    def _fresh(self, answer: Answer | None) -> Answer | None:
        if answer is None or self._now() - answer.analysed_at > self._cache_ttl:
            return None
        return answer


def _tell_failure(keeping: "asyncio.Task[None]") -> None:
    """Of an answer whose askers have all gone: nobody else would hear of it."""
    if not keeping.cancelled() and (error := keeping.exception()) is not None:
        log.error("answer_not_kept", error=type(error).__name__)
