"""The life of one worker process: `grok-insights worker` itself, with one step wrapped."""

import os
import random
from pathlib import Path
from typing import Any

from streams.commands.worker import worker
from tests.crash.points import POINTS, end_after


def live(order: dict[str, Any]) -> None:
    """Runs the worker and ends the process, so it never returns."""
    _into_log(Path(order["log"]))
    os.chdir(order["folder"])
    os.environ.update(order["settings"])
    random.seed()  # a fork inherits the state: back-offs and ids of all lives would be the same
    if order["point"] is not None:
        end_after(POINTS[order["point"]], order["nth"])
    worker()
    os._exit(0)


def _into_log(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
