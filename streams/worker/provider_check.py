"""Holds up the worker's start until the provider takes its key and has its model."""

from collections.abc import Awaitable, Callable

from schemas.errors import Retryable


class ProviderCheck:
    """A part of the worker. It stays up, not ready, while key or model are wrong: a restart would not fix them."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._has_passed = False
        self._why = "not asked yet"

    async def start(self) -> None:
        """Asks once. Raises Retryable with the setting to change, or while the provider does not answer."""
        try:
            await self._check()
        except Retryable as error:
            self._why = error.detail
            raise
        self._has_passed = True

    async def stop(self) -> None:
        """Nothing is open."""

    async def check_passed(self) -> None:
        """A health check. Raises Retryable with what the latest attempt found; asks nothing itself."""
        if not self._has_passed:
            raise Retryable(self._why)
