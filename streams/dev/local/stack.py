"""The services of the local stack together: started in order, watched, and stopped in reverse order."""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Self

from schemas.errors import Fatal
from streams.dev.local.process import ProcessLog, kill_watched_groups
from streams.dev.local.service import Service, describe_exit
from streams.folder_lock import locked_folder

WATCH_EVERY_S = 0.2
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0
# An empty Postgres takes 50 MB, its write-ahead log may grow to 256 MB, tables and Kafka's log come on top.
MIN_FREE_BYTES = 512 * 1024 * 1024

#: Shows one line to a person.
Say = Callable[[str], None]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FOLDER_HINT = "choose another folder with --data or DATA_DIR"


class RestartPolicy:
    """Pauses of 1, 2, 4 ... 30 seconds before restarts, from 1 again after a process has run for 60 seconds. Pure."""

    def __init__(self) -> None:
        self._next_pause_s = FIRST_PAUSE_S
        self._started_at_s = 0.0
        self._due_at_s: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the service has ended and waits for its restart."""
        return self._due_at_s is not None

    def started(self, now_s: float) -> None:
        """Records that the service has a process again."""
        self._started_at_s = now_s
        self._due_at_s = None

    def ended(self, now_s: float) -> float:
        """Records that the process has ended; returns the seconds to wait before the next one."""
        if now_s - self._started_at_s >= STEADY_AFTER_S:
            self._next_pause_s = FIRST_PAUSE_S
        pause_s = self._next_pause_s
        self._next_pause_s = min(2 * pause_s, MAX_PAUSE_S)
        self._due_at_s = now_s + pause_s
        return pause_s

    def is_due(self, now_s: float) -> bool:
        """Whether the pause is over."""
        return self._due_at_s is not None and now_s >= self._due_at_s


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
        # Held during restarts, so that `stop` in another thread misses no new process.
        self._restarting = threading.Lock()
        self._policies = {service.name: RestartPolicy() for service in self.services if not service.is_one_shot}

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
            self._start_from(0)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops all services in reverse order, even when one of them fails to. Safe to call again."""
        self._is_stopping = True
        try:
            with self._restarting:
                self._stop_from(0)
        finally:
            self.log.close()
            self._lock.close()

    def watch(self) -> None:
        """Restarts services that end, until `stop` from another thread, which waits for a restart that has begun.

        Raises Fatal when one cannot be restarted.
        """
        while not self._is_stopping:
            time.sleep(WATCH_EVERY_S)
            with self._restarting:
                if not self._is_stopping:
                    self._restart_ended()

    def run_until_signal(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Starts, calls `on_ready`, watches, and stops at SIGINT, SIGTERM or SIGHUP. For the main thread only.

        A signal during the stop kills everything and ends the process. Raises Fatal when a service cannot start.
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

    def _start_from(self, first: int) -> None:
        for stage in self._stages[first:]:
            for service in stage:
                service.warm_up()
        for stage in self._stages[first:]:
            began_s = time.monotonic()
            for service in stage:
                service.prepare()
                service.launch()
            for service in stage:
                service.await_ready()
                word = "done" if service.is_one_shot else "ready"
                self._report(f"{service.name} is {word} ({time.monotonic() - began_s:.1f} s)")
                if not service.is_one_shot:
                    self._policies[service.name].started(time.monotonic())

    def _stop_from(self, first: int) -> None:
        for stage in reversed(self._stages[first:]):
            running = [service for service in reversed(stage) if service.is_running]
            if running:
                self._report(f"stopping {', '.join(service.name for service in running)}")
            for service in running:
                service.ask_to_stop()
            for service in reversed(stage):
                try:
                    service.stop()
                except Exception as error:  # the others must be stopped whatever happened to this one
                    self._report(f"{service.name} could not be stopped: {error}")

    def _restart_ended(self) -> None:
        for index, stage in enumerate(self._stages):
            for service in stage:
                policy = self._policies.get(service.name)
                if policy is None:
                    continue  # a step
                if policy.is_due(time.monotonic()):
                    self._restart(service, index, policy)
                elif not policy.is_waiting and not service.is_running:
                    pause_s = policy.ended(time.monotonic())
                    exit_words = describe_exit(service.exit_code)
                    self._report(f"{service.name} ended with {exit_words}: restarts in {pause_s:g} s")

    def _restart(self, service: Service, stage: int, policy: RestartPolicy) -> None:
        if service.loses_data:
            self._report(f"{service.name} has lost its data: everything after it restarts")
            self._stop_from(stage)
            self._start_from(stage)
            return
        try:
            # Not until it is ready: a service that it needs may have ended meanwhile.
            service.launch()
        except Fatal as error:
            self._report(f"{error.what}: {error.why}; next try in {policy.ended(time.monotonic()):g} s")
        else:
            policy.started(time.monotonic())
            self._report(f"{service.name} was restarted")

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
        raise Fatal(f"the disk of {folder} is full", why, f"make room or {_FOLDER_HINT}")
