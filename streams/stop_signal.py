"""Stop signals of a process, and the last resort when its stop hangs."""

import asyncio
import os
import signal
import threading

import structlog

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


def set_at_first_stop_signal(event: asyncio.Event) -> None:
    """Sets the event at the first SIGTERM or SIGINT; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def first() -> None:
        event.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, first)


def end_process_within(seconds: float) -> None:
    """Ends the process with exit code 1 when it still runs after `seconds`.

    A separate thread does it, since the event loop may be what hangs. The thread never keeps a finished process alive.
    """

    def end() -> None:
        log.error("stop_took_too_long", seconds=seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
