"""The worker's process: runs the app until a signal or a failure, and stops gracefully."""

import asyncio
import gc

import structlog

from schemas.settings import Settings
from streams.app import build_worker
from streams.engine.app import WorkerApp
from streams.stop_signal import set_at_first_stop_signal
from streams.worker.lifecycle import Lifecycle

#: Objects more than at the last collection of the youngest generation. Records in flight are tens of thousands of them
#: and live long, so that looking at them again and again finds nothing: Python's default of 700 costs a tenth of the
#: throughput, and 50,000 still a twentieth.
GC_THRESHOLD = 200_000

log = structlog.get_logger()


async def run_worker(settings: Settings, accept_dead_letters: int = 0) -> int:
    """Works until SIGTERM or SIGINT, then stops within 10 s; returns the exit code, 1 after a failure or a halt.

    A stop gives up calls that hang, and does not commit their records. A second signal ends the process at once. What
    ended the worker is in the log already; what kept it from starting is raised. Should the stop itself hang, the
    process ends with 1; see streams.stop_signal.end_process_within.
    """
    gc.set_threshold(GC_THRESHOLD)
    app, life = build_worker(settings, accept_dead_letters)
    gc.freeze()  # modules and parts stay for as long as the process: no collection needs to look at them
    try:
        await _run_until_ended(app, life)
    finally:
        await app.stop()
    if life.failure is None and app.crash_reason is not None:
        log.error("worker_crashed", exc_info=app.crash_reason)
    return 1 if life.failure or app.crash_reason else 0


async def _run_until_ended(app: WorkerApp, life: Lifecycle) -> None:
    stop_signal = asyncio.Event()
    set_at_first_stop_signal(stop_signal)
    starting = asyncio.create_task(app.start())
    ends = [asyncio.create_task(event.wait()) for event in (stop_signal, life.failed, app.crash_event)]
    try:
        await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        log.info("worker_stopping")
    finally:
        for task in (starting, *ends):
            task.cancel()
        await asyncio.gather(starting, *ends, return_exceptions=True)
