"""Logs what a worker has done: one line a minute, from its own metrics."""

import asyncio

import structlog

from schemas.outcome import OUTCOME_NAMES
from streams.telemetry.metrics import LAG_RECORDS, REGISTRY

INTERVAL_S = 60.0

log = structlog.get_logger()


class WorkLog:
    """Logs `work_done` once in INTERVAL_S and at the stop, if conversations finished or calls were made since the last.

    Counts and cost are those of the interval; the lag is the whole group's, as last read.
    """

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins the first interval."""
        self._before = _totals()
        self._loop = asyncio.create_task(self._run(), name="work-log")

    async def stop(self) -> None:
        """Logs the rest. Safe before `start`."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._log()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            self._log()

    def _log(self) -> None:
        before, self._before = self._before, _totals()
        done = {name: total - before[name] for name, total in self._before.items()}
        if any(done.values()):
            cost_usd = round(done.pop("cost_usd"), 6)
            counts = {name: int(count) for name, count in done.items()}
            lag_records = int(sum(sample.value for metric in LAG_RECORDS.collect() for sample in metric.samples))
            lag_seconds = round(_value("conversations_lag_seconds"), 1)
            log.info("work_done", **counts, cost_usd=cost_usd, lag_records=lag_records, lag_seconds=lag_seconds)


def _totals() -> dict[str, float]:
    outcomes: dict[str, float] = {name: _value("conversations_total", outcome=name) for name in OUTCOME_NAMES}
    return {**outcomes, "calls": _value("grok_calls_total"), "cost_usd": _value("estimated_cost_usd_total")}


def _value(name: str, **labels: str) -> float:
    """Returns 0 for a label that has not been counted yet."""
    return REGISTRY.get_sample_value(name, labels) or 0.0
