"""The services of the local stack together: started in order, watched, and stopped in reverse order.

Nothing restarts: when one service ends, its last lines are the error, and everything stops.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

from schemas.errors import Fatal
from streams.dev.local.process import ProcessLog, kill_watched_groups
from streams.dev.local.service import Service
from streams.folder_lock import locked_folder

WATCH_EVERY_S = 0.2
# An empty Postgres takes 50 MB, its write-ahead log may grow to 256 MB, tables and Kafka's log come on top.
MIN_FREE_BYTES = 512 * 1024 * 1024

#: Shows one line to a person.
Say = Callable[[str], None]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FOLDER_HINT = "choose another folder with --data or DATA_DIR"


class Stack:
    """Services in stages. Those of one stage do not need each other: they start and stop at the same time.

    As a context manager it starts on entry and stops on exit. It locks `folder` while it runs.
    """

    def __init__(self, stages: Sequence[Sequence[Service]], folder: Path, log: ProcessLog, say: Say) -> None:
        self.log = log
        #: In the order of their start.
        self.services = [service for stage in stages for service in stage]
        self._stages = stages
        self._folder = folder
        self._lock = contextlib.ExitStack()
        self._say = say
        self._is_stopping = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when every service is ready; once only. Raises Fatal, with nothing left running."""
        self._lock.enter_context(locked_folder(self._folder, "stack", _FOLDER_HINT))
        try:
            _check_disk(self._folder)
            for service in self.services:
                service.preflight()
            for service in self.services:
                service.warm_up()
            for stage in self._stages:
                self._start_stage(stage)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops all services in reverse order, even when one of them fails to. Safe to call again."""
        self._is_stopping = True
        try:
            for stage in reversed(self._stages):
                self._stop_stage(stage)
        finally:
            self.log.close()
            self._lock.close()

    def check_running(self) -> None:
        """Raises Fatal, with its last lines, when a service has ended."""
        for service in self.services:
            try:
                service.check_running()
            except Fatal as error:
                self._report(f"{error.what}: everything stops")
                raise

    def watch(self) -> NoReturn:
        """Checks all services from time to time. Raises Fatal when one has ended."""
        while True:
            self.check_running()
            time.sleep(WATCH_EVERY_S)

    def run_until_signal(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Starts, calls `on_ready`, watches, and stops at SIGINT, SIGTERM or SIGHUP. For the main thread only.

        A signal during the stop kills everything and ends the process. Raises Fatal when a service cannot start, or
        has ended; everything is stopped by then.
        """
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            self.start()
            on_ready()
            self.watch()
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start_stage(self, stage: Sequence[Service]) -> None:
        began_s = time.monotonic()
        for service in stage:
            service.prepare()
            service.launch()
        for service in stage:
            service.await_ready()
            word = "done" if service.is_one_shot else "ready"
            self._report(f"{service.name} is {word} ({time.monotonic() - began_s:.1f} s)")

    def _stop_stage(self, stage: Sequence[Service]) -> None:
        running = [service for service in reversed(stage) if service.is_running]
        if running:
            self._report(f"stopping {', '.join(service.name for service in running)}")
        for service in stage:  # also one that is only warm
            service.ask_to_stop()
        for service in reversed(stage):
            try:
                service.stop()
            except Exception as error:  # the others must be stopped whatever happened to this one
                self._report(f"{service.name} could not be stopped: {error}")

    def _report(self, line: str) -> None:
        self.log.line("stack", line)
        # A closed terminal must not leave processes behind.
        with contextlib.suppress(OSError):
            self._say(line)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._is_stopping:
            kill_watched_groups()
            os._exit(128 + number)
        self._is_stopping = True
        raise KeyboardInterrupt


def _check_disk(folder: Path) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < MIN_FREE_BYTES:
        why = f"{free_bytes // 2**20} MiB are free, the local stack needs {MIN_FREE_BYTES // 2**20} MiB"
        raise Fatal(f"the disk of {folder} is full", why, f"free some space or {_FOLDER_HINT}")
