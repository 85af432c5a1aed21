"""The recipe for one text that passed the prefilter: look up, share a call under way, ask, keep the answer."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from agents.analyser import Analyser
from agents.cache import AnswerCache
from agents.guards.single_flight import SingleFlight
from schemas.insight import Answer
from schemas.outcome import Analysed, Cached


class Recipe:
    """One for a worker: it knows which texts are being asked about, so that no text is paid for twice."""

    def __init__(self, analyser: Analyser, cache_ttl: timedelta, now: Callable[[], datetime]) -> None:
        self._analyser = analyser
        self._cache_ttl = cache_ttl
        self._now = now
        self._flights: SingleFlight[str, Answer] = SingleFlight()

    @property
    def version(self) -> str:
        """The analysis version that answers are asked for and kept under."""
        return self._analyser.version

    async def analyse(self, text: str, text_key: str, cache: AnswerCache) -> Analysed | Cached:
        """Analysed for the one whose call it was, Cached for every other; the answer is kept before either returns.

        Raises what the analyser and the cache raise: Retryable, Unprocessable, Fatal.
        """
        key = f"{text_key}:{self.version}"
        stored = self._fresh(cache.get(key))
        if stored is not None:
            return Cached(stored)
        answer, led = await self._flights.run(key, lambda: self._ask(text, key, cache))
        return Analysed(answer) if led else Cached(answer)

    async def _ask(self, text: str, key: str, cache: AnswerCache) -> Answer:
        answer = await self._analyser.analyse(text)
        keeping = asyncio.ensure_future(cache.put(key, answer))
        try:
            await asyncio.shield(keeping)
        except asyncio.CancelledError:
            # The answer is paid for: it is kept all the same, so that whoever gets the text next finds it.
            await asyncio.wait({keeping})
            raise
        return answer

    def _fresh(self, answer: Answer | None) -> Answer | None:
        if answer is None or self._now() - answer.analysed_at > self._cache_ttl:
            return None
        return answer
