"""The group's lag into the metrics, read regularly. Every process tells of the whole group: take the maximum."""

import asyncio

import structlog

from streams.telemetry import metrics
from streams.telemetry.lag_view import Lag, LagSource

READ_EVERY_S = 5.0

log = structlog.get_logger()


class LagMetrics:
    """Reads and shows until it is stopped; a broker that does not answer leaves the last figures and a log line."""

    def __init__(self, source: LagSource) -> None:
        self._source = source
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins with a reading at once."""
        self._loop = asyncio.create_task(self._keep_showing())

    async def stop(self) -> None:
        """Ends the loop; a reading under way is given up."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def _keep_showing(self) -> None:
        while True:
            try:
                show(await self._source.read())
            except Exception as error:  # the edge of a loop that nothing else depends on
                log.warning("lag_unknown", error=type(error).__name__)
            await asyncio.sleep(READ_EVERY_S)


def show(lag: Lag) -> None:
    """Sets the gauges."""
    for partition, records in lag.records_by_partition.items():
        metrics.LAG_RECORDS.labels(str(partition)).set(records)
    metrics.LAG_S.set(lag.seconds)
