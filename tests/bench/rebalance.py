"""How long a joining, leaving or killed worker stops the flow of conversations that come in steadily.

One worker works on a steady feed. A second one joins, is stopped with SIGTERM, joins again and is killed. For each of
these: the longest time without any row, and the longest that a conversation waited for its row, until the next one.
"""

import asyncio
import time
from itertools import pairwise

from streams.terminal import Display
from tests.bench.drain import rows_written, work_finished
from tests.bench.environment import CommittedRow, Environment, Run
from tests.bench.report import Figure, Report, ReportTable
from tests.bench.workload import Workload, feed

_STEADY_S = 8.0
#: A killed worker's session must time out before its partitions move.
_AFTER_KILL_S = 35.0
_MOST_S = 300


def rebalance(env: Environment, display: Display, rate: float) -> Report:
    """Not `ok` when a conversation has no row."""
    rows, lost = asyncio.run(_measure(env, display, rate))
    return Report("rebalance", [ReportTable(f"Rebalances at {rate:,.0f} conversations a second", rows)], lost == 0)


async def _measure(env: Environment, display: Display, rate: float) -> tuple[list[dict[str, Figure]], int]:
    async with env.run("rebalance") as run:
        staying = await asyncio.to_thread(run.service.start_worker, "staying")
        conversations = Workload(records=round(rate * _MOST_S)).conversations()
        feeding = asyncio.create_task(feed(env.bootstrap_servers, conversations, rate))
        marks = await _disturb(run, display)
        feeding.cancel()
        await asyncio.wait([feeding])
        fed = await run.count_conversations()
        await rows_written(run, fed, staying)
        await work_finished(run, fed)
        rows = await run.committed_rows()
        ends_s = [*(at_s for _, at_s in marks[1:]), rows[-1].committed_s]
        return [_look(rows, what, at_s, end_s) for (what, at_s), end_s in zip(marks, ends_s, strict=True)], fed - len(
            rows
        )


async def _disturb(run: Run, display: Display) -> list[tuple[str, float]]:
    """What was done, and when."""
    marks = []

    def mark(what: str) -> None:
        display.say(what)
        marks.append((what, time.time()))

    mark("nothing happens")
    await asyncio.sleep(_STEADY_S)
    mark("a second worker joins")
    leaving = await asyncio.to_thread(run.service.start_worker, "leaving")
    await asyncio.sleep(_STEADY_S)
    mark("it is stopped with SIGTERM")
    await asyncio.to_thread(leaving.stop)
    await asyncio.sleep(_STEADY_S)
    mark("it joins again")
    killed = await asyncio.to_thread(run.service.start_worker, "leaving")
    await asyncio.sleep(_STEADY_S)
    mark("it is killed with SIGKILL")
    await asyncio.to_thread(killed.kill)
    await asyncio.sleep(_AFTER_KILL_S)
    return marks


def _look(rows: list[CommittedRow], what: str, began_s: float, ended_s: float) -> dict[str, Figure]:
    """A conversation counts where its row was committed: what waits for a rebalance may have come before it."""
    of_this = [row for row in rows if began_s <= row.committed_s <= ended_s]
    committed_s = [began_s, *(row.committed_s for row in of_this), ended_s]
    without_rows_s = max(after - before for before, after in pairwise(committed_s))
    slowest_s = max(row.committed_s - row.received_s for row in of_this)
    return {"": what, "longest time without a row, s": without_rows_s, "slowest conversation, s": slowest_s}
