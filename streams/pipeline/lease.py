"""How long the group is sure to count this worker in: nobody pays in a partition that may be another's by now."""

import asyncio
import time
from collections.abc import Callable

_LOOK_AGAIN_S = 0.1


class GroupLease:
    """Holds for one session timeout after the latest heartbeat or join that the group took, counted from when it was
    sent, and not after the group said no.

    A worker that was frozen or cut off from the brokers for longer may have been given up, and another one may be
    working on the same records. Rows and events survive that, a second call to the provider is money spent.

    The clock stands still while the whole machine is suspended (CLOCK_MONOTONIC): that is not noticed before the next
    heartbeat.
    """

    def __init__(self, session_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._session_timeout_s = session_timeout_s
        self._clock = clock
        self._renewed_at_s: float | None = None
        self._watch: asyncio.Task[None] | None = None

    def renewed(self, sent_at_s: float) -> None:
        """The group took what was sent at that time, by the same clock. Safe from any thread."""
        self._renewed_at_s = sent_at_s

    def lost(self) -> None:
        """The group does not know this worker any more. Safe from any thread."""
        self._renewed_at_s = None

    @property
    def is_held(self) -> bool:
        """Whether the group cannot have given this worker up."""
        renewed_at_s = self._renewed_at_s
        return renewed_at_s is not None and self._clock() - renewed_at_s < self._session_timeout_s

    async def held(self) -> None:
        """Returns once it is held; hundreds may wait, and one of them looks."""
        while not self.is_held:
            if self._watch is None or self._watch.done():
                self._watch = asyncio.create_task(self._until_held(), name="group-lease")
            await asyncio.shield(self._watch)

    async def _until_held(self) -> None:
        while not self.is_held:  # noqa: ASYNC110  renewed from the consumer's thread, and it also runs out by itself
            await asyncio.sleep(_LOOK_AGAIN_S)
