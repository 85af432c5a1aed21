"""Tells every end of a record to the dead-letter limit, and lets no letter pass that the limit does not admit."""

from schemas.dead_letter import DeadLetter
from schemas.outcome import Dead, Outcome
from streams.pipeline.dead_letter_limit import DeadLetterLimit
from streams.pipeline.delivery import LetterHeld, Letters
from streams.pipeline.steps import Outcomes


class LimitedLetters:
    """See streams.pipeline.delivery.Letters."""

    def __init__(self, limit: DeadLetterLimit, letters: Letters) -> None:
        self._limit = limit
        self._letters = letters

    async def send(self, letter: DeadLetter, conversation_id: str | None) -> None:
        """Asked before the letter is sent: hundreds of records may be dying at the same moment. Raises LetterHeld."""
        if not self._limit.admits(letter.origin, letter.reason):
            raise LetterHeld("the dead-letter limit is reached")
        await self._letters.send(letter, conversation_id)


class CountedOutcomes:
    """See streams.pipeline.steps.Outcomes; the dead were counted when their letters were sent."""

    def __init__(self, limit: DeadLetterLimit, outcomes: Outcomes) -> None:
        self._limit = limit
        self._outcomes = outcomes

    def ended(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Dead):
            self._limit.lived()
        self._outcomes.ended(outcome)

    def rehomed(self) -> None:
        self._outcomes.rehomed()
