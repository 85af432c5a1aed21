"""Sinks in memory that can be told to fail; proven against the real ones in tests/contracts."""

from collections.abc import Sequence

from schemas.dead_letter import DeadLetter
from schemas.result import ConversationResult


class _Failing:
    """Raises the given errors, one a call, before it begins to work."""

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self.failures = list(failures)

    def _fail_if_told(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class FakeRows(_Failing):
    """One row for each (tenant, id): the newest occurred_at wins, a dead one is replaced by its equal."""

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        super().__init__(failures)
        self.rows: dict[tuple[str, str], ConversationResult] = {}

    async def write(self, result: ConversationResult) -> None:
        self._fail_if_told()
        key = (result.tenant, result.id)
        stored = self.rows.get(key)
        if stored is None or _wins(result, stored):
            self.rows[key] = result


def _wins(result: ConversationResult, stored: ConversationResult) -> bool:
    if result.occurred_at == stored.occurred_at:
        return stored.outcome == "dead" and result.outcome != "dead"
    return result.occurred_at > stored.occurred_at


class FakeEvents(_Failing):
    """Keeps every event in order."""

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        super().__init__(failures)
        self.sent: list[ConversationResult] = []

    async def send(self, result: ConversationResult, traceparent: str | None) -> None:
        self._fail_if_told()
        self.sent.append(result)


class FakeLetters(_Failing):
    """Keeps every dead letter in order."""

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        super().__init__(failures)
        self.sent: list[tuple[DeadLetter, str | None]] = []

    async def send(self, letter: DeadLetter, conversation_id: str | None) -> None:
        self._fail_if_told()
        self.sent.append((letter, conversation_id))
