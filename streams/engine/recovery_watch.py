"""Recovery watch: ends a worker whose table recovery has stalled, since that never ends by itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, cast

import faust
from faust.tables.manager import TableManager

from schemas.errors import Fatal, Retryable

LOOK_EVERY_S = 1.0
CHECK_WITHIN_S = 3.0


@dataclass(slots=True)
class RecoveryWatch:
    """Fed regularly with what recovery still has to read; the time is passed in.

    Recovery was seen to hang after quick rebalances; a live one applies records many times a second.
    """

    stall_s: float
    _remaining: int | None = None
    _moved_at_s: float = 0.0

    def has_stalled(self, is_recovering: bool, remaining: int, now_s: float) -> bool:
        """True once nothing has been read for `stall_s` seconds of recovery."""
        if not is_recovering:
            self._remaining = None
            return False
        if remaining != self._remaining:
            self._remaining, self._moved_at_s = remaining, now_s
        return now_s - self._moved_at_s >= self.stall_s


async def watch_recovery(
    app: faust.App,
    check_broker: Callable[[], Awaitable[None]],
    *,
    stall_s: float,
    look_every_s: float = LOOK_EVERY_S,
) -> NoReturn:
    """Until cancelled. Raises Fatal when recovery has stalled: the process must then be restarted.

    Time counts only while `check_broker` passes, by returning: a recovery waits for brokers as everything else does.
    """
    watch, recovery = RecoveryWatch(stall_s), cast(TableManager, app.tables).recovery
    while True:
        await asyncio.sleep(look_every_s)
        remaining = recovery.active_remaining_total()
        is_recovering = app.in_recovery and await _passes(check_broker)
        if watch.has_stalled(is_recovering, remaining, time.monotonic()):
            why = f"nothing was read from its changelog for {stall_s:g} s, {remaining} records are left"
            raise Fatal("the recovery of the answers table has stalled", why, "start the worker again")


async def _passes(check_broker: Callable[[], Awaitable[None]]) -> bool:
    try:
        async with asyncio.timeout(CHECK_WITHIN_S):
            await check_broker()
    except (Retryable, TimeoutError):
        return False
    return True
