"""Forks worker processes from one that has imported everything already: an import for each would take half the time.

Commands arrive as lines of JSON on stdin; exit codes go to stdout. When stdin ends, every process ends.
"""

import gc
import json
import os
import select
import signal
import sys
import threading
import traceback
from typing import Any

from tests.crash.crashing_worker import live

REAP_EVERY_S = 0.05


class Zygote:
    """Knows its children by the numbers of the commands."""

    def __init__(self) -> None:
        self._lives: dict[int, int] = {}  # process to number

    def run(self) -> None:
        """Until stdin ends."""
        rest = b""
        while True:
            if select.select([0], [], [], REAP_EVERY_S)[0]:
                received = os.read(0, 65_536)
                if not received:
                    break
                *lines, rest = (rest + received).split(b"\n")
                for line in lines:
                    self._carry_out(json.loads(line))
            self._reap()
        for pid in self._lives:
            os.kill(pid, signal.SIGKILL)

    def _carry_out(self, order: dict[str, Any]) -> None:
        if order["do"] == "kill":
            for pid in [pid for pid, number in self._lives.items() if number == order["number"]]:
                os.kill(pid, signal.SIGKILL)
            return
        pid = os.fork()
        if pid == 0:
            try:
                live(order)
            except BaseException:  # the edge of the process: whatever it was, it goes to the life's log
                traceback.print_exc()
                os._exit(1)
        self._lives[pid] = order["number"]

    def _reap(self) -> None:
        while self._lives:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            tell(number=self._lives.pop(pid), code=os.waitstatus_to_exitcode(status))


def tell(**facts: int) -> None:
    """Writes one line for the test."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    assert threading.active_count() == 1, "a fork has only the thread that forked"
    gc.freeze()
    tell(ready=1)
    Zygote().run()
