"""The worker logs its work: one line a minute, and none without work."""

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas.insight import Usage
from streams.telemetry.metrics import CONVERSATIONS, LAG_RECORDS, LAG_S, CallMetrics
from streams.telemetry.work_log import INTERVAL_S, WorkLog
from tests.support.virtual_time import VirtualTimeLoop


@pytest.fixture
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as events:
        yield events


def test_a_line_a_minute_counts_what_was_done_in_it(logged: list[MutableMapping[str, Any]]) -> None:
    """By outcome, with calls, cost and the group's lag. A minute without work has no line; the stop logs the rest."""

    async def minutes() -> None:
        work_log = WorkLog()
        await work_log.start()
        CONVERSATIONS.labels("analysed").inc(3)
        CONVERSATIONS.labels("filtered").inc()
        CallMetrics().call_succeeded(1.0, Usage(10, 5, 20_000_000))
        LAG_RECORDS.labels("0").set(7)
        LAG_S.set(1.23)
        await asyncio.sleep(INTERVAL_S * 2.5)
        CONVERSATIONS.labels("cached").inc(2)
        await work_log.stop()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(minutes())
    lag = {"lag_records": 7, "lag_seconds": 1.2}
    none = {"analysed": 0, "cached": 0, "filtered": 0, "dead": 0, "calls": 0, "cost_usd": 0.0}
    line = {"event": "work_done", "log_level": "info", **none, **lag}
    assert logged == [
        {**line, "analysed": 3, "filtered": 1, "calls": 1, "cost_usd": 0.002},
        {**line, "cached": 2},
    ]
