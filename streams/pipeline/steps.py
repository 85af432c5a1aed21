"""The seven steps of one record: decode, prefilter, home, then cache, single flight and call, then delivery."""

from collections.abc import Callable
from typing import Protocol

from agents.analyse import Recipe
from agents.cache import AnswerCache
from agents.prefilter.low_value import low_value
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, Unprocessable
from schemas.outcome import Analysed, Cached, Dead, Filtered, Outcome
from streams.pipeline.attempts import AssignmentOver, IsAlive, until_done
from streams.pipeline.delivery import Delivery, LetterHeld
from streams.pipeline.envelope import Envelope, open_envelope
from streams.pipeline.home import Rehoming
from streams.pipeline.record import Record


class Outcomes(Protocol):
    """Hears how conversations end; must neither wait nor raise."""

    def ended(self, outcome: Outcome) -> None: ...

    def rehomed(self) -> None: ...


class Steps:
    """Takes one record through all steps; `handle` returns when the record's slot may be finished."""

    def __init__(
        self,
        recipe: Recipe,
        delivery: Delivery,
        rehoming: Rehoming,
        cache_of: Callable[[int], AnswerCache],
        outcomes: Outcomes,
        stop: Callable[[Fatal], None],
    ) -> None:
        self._recipe = recipe
        self._delivery = delivery
        self._rehoming = rehoming
        self._cache_of = cache_of
        self._outcomes = outcomes
        self._stop = stop

    async def handle(self, record: Record, is_alive: IsAlive) -> bool:
        """True when everything about the record is durable; False when its slot must stay open.

        It stays open when the assignment is over, when the record died after the dead-letter limit was reached, or when
        the process must end (then `stop` is called).
        """
        try:
            await self._take_through(record, is_alive)
        except (AssignmentOver, LetterHeld):
            return False
        except Fatal as error:
            self._stop(error)
            return False
        return True

    async def _take_through(self, record: Record, is_alive: IsAlive) -> None:
        envelope: Envelope | None = None
        outcome: Outcome
        try:
            envelope = open_envelope(record)
            reason = low_value(envelope.text)
            if reason is not None:
                outcome = Filtered(reason)
            elif self._rehoming.is_away(record, envelope.text_key):
                await self._send_home(record, envelope.text_key, is_alive)
                return
            else:
                outcome = await self._analyse(record, envelope, is_alive)
        except Unprocessable as error:
            outcome = Dead(DeadLetterReason(error.reason), error.detail)
        self._outcomes.ended(await self._delivery.deliver(record, envelope, outcome, is_alive))

    async def _send_home(self, record: Record, text_key: str, is_alive: IsAlive) -> None:
        await until_done(lambda: self._rehoming.send_home(record, text_key), is_alive)
        self._outcomes.rehomed()

    async def _analyse(self, record: Record, envelope: Envelope, is_alive: IsAlive) -> Analysed | Cached:
        cache = self._cache_of(record.partition)
        return await until_done(lambda: self._recipe.analyse(envelope.text, envelope.text_key, cache), is_alive)
