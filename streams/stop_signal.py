"""The signals that end a process in order: the first one is heard, the next one has its default effect."""

import asyncio
import signal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def set_at_first_stop_signal(told: asyncio.Event) -> None:
    """Sets `told` at the first SIGTERM or SIGINT; a second one then ends the process at once."""
    loop = asyncio.get_running_loop()

    def first() -> None:
        told.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, first)
