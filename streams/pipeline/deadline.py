"""The last resort of a stop: a process that does not end by itself is ended."""

import os
import threading

import structlog

log = structlog.get_logger()


def end_process_within(seconds: float) -> None:
    """Exit code 1 when it still runs after `seconds`; what is not committed is read again, so nothing is lost.

    A thread of its own, since what hangs may be the event loop. It never keeps a finished process alive.
    """

    def end() -> None:
        log.error("stop_took_too_long", seconds=seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
