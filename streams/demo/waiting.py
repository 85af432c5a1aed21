"""Waits until every posted conversation has its row, or tells why that will not happen."""

import asyncio
import time
from collections.abc import Sequence

from schemas.errors import Fatal
from streams.demo.insights_table import InsightsTable
from streams.local.service import describe_exit, failure
from streams.local.stack import Stack
from streams.progress import Display

POLL_S = 0.1
#: No new row for so long, with everything posted, is no slow machine any more.
STALLED_AFTER_S = 60.0
_SHOWN_IDS = 5


class Waiting:
    """`ids` are those of all conversations that are being posted."""

    def __init__(self, stack: Stack, table: InsightsTable, display: Display, ids: Sequence[str]) -> None:
        self._stack = stack
        self._table = table
        self._display = display
        self._ids = ids

    async def until_all_ended(self, posting: "asyncio.Task[None]") -> None:
        """Raises Fatal when posting fails, a process of the stack ends or nothing moves any more."""
        seen, moved_at_s = 0, time.monotonic()
        while True:
            posted = posting.done()
            if posted:
                posting.result()
            ended = await self._table.count()
            self._display.reached("ended", ended)
            if posted and ended >= len(self._ids):
                return
            if ended != seen or not posted:
                seen, moved_at_s = ended, time.monotonic()
            elif time.monotonic() - moved_at_s > STALLED_AFTER_S:
                raise await self._stalled()
            self._check_all_run()
            await asyncio.sleep(POLL_S)

    def _check_all_run(self) -> None:
        for part in self._stack.parts:
            if not part.is_one_shot and not part.is_running:
                why = f"it ended with {describe_exit(part.exit_code)}"
                raise failure(f"{part.name} did not last the demo", why, part.name, self._stack.log)

    async def _stalled(self) -> Fatal:
        missing = await self._table.missing(self._ids)
        shown = ", ".join(missing[:_SHOWN_IDS]) + (", ..." if len(missing) > _SHOWN_IDS else "")
        return Fatal(
            f"{len(missing)} of {len(self._ids)} conversations have no row",
            f"nothing moved for {STALLED_AFTER_S:g} s; missing are {shown}",
            f"the log of all processes is {self._stack.log.path}",
        )
