"""What the recipe needs of the answer cache; the workers' own stands on their RocksDB table."""

from typing import Protocol

from schemas.insight import Answer


class AnswerCache(Protocol):
    """Answers by key (text key and analysis version). Equal texts must reach the same cache."""

    def get(self, key: str) -> Answer | None:
        """The stored answer, or None."""

    async def put(self, key: str, answer: Answer) -> None:
        """Returns when the answer outlives this process. Raises Retryable when that could not be had now."""
