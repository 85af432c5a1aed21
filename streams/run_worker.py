"""The worker's process: runs the app until a signal or a failure, and leaves in order."""

import asyncio

import structlog

from schemas.settings import Settings
from streams.pipeline.analyst_app import AnalystApp
from streams.pipeline.deadline import end_process_within
from streams.pipeline.worker import STOP_WITHIN_S
from streams.stop_signal import set_at_first_stop_signal
from streams.wiring import build_worker

log = structlog.get_logger()


async def run_worker(settings: Settings) -> None:
    """Until SIGTERM or SIGINT, then returns, within 10 s: calls that hang are given up, and their records are not
    committed. A second signal ends the process at once. Raises what ended the worker otherwise.

    Should the stop itself hang, the process ends with 1; see streams.pipeline.deadline.
    """
    app = build_worker(settings)
    try:
        await _run_until_ended(app)
    finally:
        end_process_within(STOP_WITHIN_S)
        await app.stop()
    reason = app.worker.failure or app.crash_reason
    if reason is not None:
        raise reason


async def _run_until_ended(app: AnalystApp) -> None:
    told = asyncio.Event()
    set_at_first_stop_signal(told)
    starting = asyncio.create_task(app.start())
    ends = [asyncio.create_task(event.wait()) for event in (told, app.worker.failed, app._crashed)]
    try:
        await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        log.info("worker_stopping", crash=type(app.crash_reason).__name__ if app.crash_reason else None)
    finally:
        for task in (starting, *ends):
            task.cancel()
        await asyncio.gather(starting, *ends, return_exceptions=True)
