"""Sinks in memory; proven against the real ones in tests/contracts."""

from collections.abc import Sequence

from streams.pipeline.delivery import LetterHeld

from schemas.dead_letter import DeadLetter
from schemas.result import ConversationResult


class FakeRows:
    """One row for each (tenant, id): the newest occurred_at wins, a dead one is replaced by its equal.

    Raises the given errors first, one a call, and stores nothing then.
    """

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self.failures = list(failures)
        self.rows: dict[tuple[str, str], ConversationResult] = {}

    async def write(self, result: ConversationResult) -> None:
        if self.failures:
            raise self.failures.pop(0)
        key = (result.tenant, result.id)
        stored = self.rows.get(key)
        if stored is None or _wins(result, stored):
            self.rows[key] = result


def _wins(result: ConversationResult, stored: ConversationResult) -> bool:
    if result.occurred_at == stored.occurred_at:
        return stored.outcome == "dead" and result.outcome != "dead"
    return result.occurred_at > stored.occurred_at


class FakeEvents:
    """Keeps every event in order; raises the given errors first, one a call, and keeps nothing then."""

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self.failures = list(failures)
        self.sent: list[ConversationResult] = []

    async def send(self, result: ConversationResult, traceparent: str | None) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(result)


class FakeLetters:
    """Keeps every dead letter in order; none once `is_held` is set, as after the dead-letter limit."""

    def __init__(self) -> None:
        self.sent: list[tuple[DeadLetter, str | None]] = []
        self.is_held = False

    async def send(self, letter: DeadLetter, conversation_id: str | None) -> None:
        if self.is_held:
            raise LetterHeld("the dead-letter limit is reached")
        self.sent.append((letter, conversation_id))
