"""How long the group is sure to count this worker in: nobody pays in a partition that may be another's by now."""

import asyncio
import time
from collections.abc import Callable

_LOOK_AGAIN_S = 0.1


class GroupLease:
    """Holds for one session timeout after the latest heartbeat that the group took, counted from when it was sent.

    A worker that was frozen or cut off from the brokers for longer may have been given up, and another one may be
    working on the same records. Rows and events survive that, a second call to the provider is money spent.
    """

    def __init__(self, session_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._session_timeout_s = session_timeout_s
        self._clock = clock
        self._renewed_at_s: float | None = None

    def renewed(self, sent_at_s: float) -> None:
        """The group took a heartbeat that was sent at that time, by the same clock. Safe from any thread."""
        self._renewed_at_s = sent_at_s

    @property
    def is_held(self) -> bool:
        """Whether the group cannot have given this worker up."""
        return self._renewed_at_s is not None and self._clock() - self._renewed_at_s < self._session_timeout_s

    async def held(self) -> None:
        """Returns once it is held."""
        while not self.is_held:  # noqa: ASYNC110  renewed from the consumer's thread, and it also runs out by itself
            await asyncio.sleep(_LOOK_AGAIN_S)
