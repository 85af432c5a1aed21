"""The worker's process: runs the app until a signal or a failure, and leaves in order."""

import asyncio
import signal

import structlog

from schemas.settings import Settings
from streams.pipeline.analyst_app import AnalystApp
from streams.pipeline.deadline import end_process_within
from streams.pipeline.worker import STOP_WITHIN_S
from streams.wiring import build_worker

log = structlog.get_logger()


async def run_worker(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; a second signal ends the process at once. Raises what ended the worker otherwise."""
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
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _first_signal, told)
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


def _first_signal(told: asyncio.Event) -> None:
    told.set()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
