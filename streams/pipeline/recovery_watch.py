"""Notices a table recovery that stands still: it never ends by itself, so the process has to."""

import asyncio
import time
from dataclasses import dataclass
from typing import NoReturn, cast

import faust
from faust.tables.manager import TableManager

from schemas.errors import Fatal

#: Recovery was seen to hang for ever after quick rebalances; a live one applies records many times a second.
STANDSTILL_S = 15.0
LOOK_EVERY_S = 1.0


@dataclass(slots=True)
class RecoveryWatch:
    """Fed regularly with what recovery still has to read; the time is passed in."""

    standstill_s: float = STANDSTILL_S
    _remaining: int | None = None
    _moved_at_s: float = 0.0

    def stands_still(self, is_recovering: bool, remaining: int, now_s: float) -> bool:
        """True once nothing has moved for `standstill_s` seconds of recovery."""
        if not is_recovering:
            self._remaining = None
            return False
        if remaining != self._remaining:
            self._remaining, self._moved_at_s = remaining, now_s
        return now_s - self._moved_at_s >= self.standstill_s


async def watch_recovery(app: faust.App) -> NoReturn:
    """Until cancelled. Raises Fatal when recovery stands still: the process is then to be started again."""
    watch, recovery = RecoveryWatch(), cast(TableManager, app.tables).recovery
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        remaining = recovery.active_remaining_total()
        if watch.stands_still(app.in_recovery, remaining, time.monotonic()):
            why = f"nothing was read from its changelog for {STANDSTILL_S:g} s, {remaining} records are left"
            raise Fatal("the recovery of the answers table stands still", why, "start the worker again")
