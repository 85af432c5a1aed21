"""The first stop signal sets the event, the second one ends the process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

_STOPS_NEVER = """
import asyncio
from streams.stop_signal import set_at_first_stop_signal

async def main():
    stopping = asyncio.Event()
    set_at_first_stop_signal(stopping)
    print("ready", flush=True)
    await stopping.wait()
    print("stopping", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_does_not_stop(first: signal.Signals, second: signal.Signals) -> None:
    """Whichever the two are: none of our code runs any more."""
    command = [sys.executable, "-c", _STOPS_NEVER]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(first)
            assert process.stdout.readline() == b"stopping\n"
            process.send_signal(second)
            assert process.wait(10) == -second
        finally:
            process.kill()
