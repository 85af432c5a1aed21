"""The first signal is heard, the second one ends the process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

_STOPS_NEVER = """
import asyncio
from streams.stop_signal import set_at_first_stop_signal

async def main():
    told = asyncio.Event()
    set_at_first_stop_signal(told)
    print("ready", flush=True)
    await told.wait()
    print("told", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_does_not_stop(first: signal.Signals, second: signal.Signals) -> None:
    """Whichever the two are: nothing of ours runs any more."""
    command = [sys.executable, "-c", _STOPS_NEVER]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(first)
            assert process.stdout.readline() == b"told\n"
            process.send_signal(second)
            assert process.wait(10) == -second
        finally:
            process.kill()
