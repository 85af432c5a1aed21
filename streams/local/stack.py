"""The parts of the local stack together: started in order, watched, and stopped in reverse whatever happens."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Self

from schemas.errors import Fatal
from streams.local import guard
from streams.local.data_folder import DataFolder
from streams.local.log_sink import LogSink
from streams.local.restart_policy import RestartPolicy
from streams.local.service import Interrupted, Service, describe_exit

WATCH_EVERY_S = 0.2
Say = Callable[[str], None]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def nothing_to_do() -> None:
    """The `on_ready` of a caller with nothing to add."""


class Stack:
    """Stages of parts. Those of one stage do not need each other: they start and stop side by side.

    As a context manager it starts on entry and stops on exit. `say` takes one line for a person at a time.
    """

    def __init__(self, stages: Sequence[Sequence[Service]], folder: DataFolder, log: LogSink, say: Say) -> None:
        self.log = log
        self._stages = stages
        self._folder = folder
        self._say = say
        self._stopping = threading.Event()
        # Held while parts are started again, so that `stop` in another thread misses none of them.
        self._reviving = threading.Lock()
        self._policies = {part.name: RestartPolicy() for stage in stages for part in stage if not part.is_one_shot}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def parts(self) -> list[Service]:
        """All parts in the order of their start."""
        return [part for stage in self._stages for part in stage]

    def start(self) -> None:
        """Returns when every part is ready; once only. Raises Fatal or Interrupted, with nothing left running."""
        self._folder.acquire()
        try:
            for part in self.parts:
                part.preflight()
            self._start_from(0)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all parts in reverse order, even when one of them fails to. Safe to call again."""
        self._stopping.set()
        try:
            with self._reviving:
                self._stop_from(0)
        finally:
            self.log.close()
            self._folder.release()

    def watch(self) -> None:
        """Start dead parts again, until a signal or `stop` from another thread. Raises Fatal when that is hopeless."""
        with contextlib.suppress(Interrupted):
            while not self._stopping.wait(WATCH_EVERY_S):
                with self._reviving:
                    self._revive_all()

    def run_until_signal(self, on_ready: Callable[[], None] = nothing_to_do) -> None:
        """Start, call `on_ready`, watch, and stop at SIGINT, SIGTERM or SIGHUP; for the main thread only.

        A signal while it stops kills everything and ends the process at once. Raises Fatal when a part cannot start.
        """
        with self._signals():
            try:
                self.start()
                on_ready()
                self.watch()
            except Interrupted:
                pass
            finally:
                self.stop()

    def _start_from(self, first: int) -> None:
        for stage in self._stages[first:]:
            began = time.monotonic()
            for part in stage:
                part.prepare(self._stopping.is_set)
                part.launch()
            for part in stage:
                part.await_ready(self._stopping.is_set)
                self._tell(f"{part.name} is {_ready_word(part)} ({time.monotonic() - began:.1f} s)")
                if not part.is_one_shot:
                    self._policies[part.name].started(time.monotonic())

    def _stop_from(self, first: int) -> None:
        for stage in reversed(self._stages[first:]):
            running = [part for part in reversed(stage) if part.is_running]
            if running:
                self._tell(f"stopping {', '.join(part.name for part in running)}")
            for part in running:
                part.ask_to_stop()
            for part in reversed(stage):
                try:
                    part.stop()
                except Exception as error:  # the others must be stopped whatever happened to this one
                    self._tell(f"{part.name} could not be stopped: {error}")

    def _revive_all(self) -> None:
        for index, stage in enumerate(self._stages):
            for part in stage:
                if self._stopping.is_set():
                    raise Interrupted(part.name)
                if not part.is_one_shot:
                    self._revive(part, index)

    def _revive(self, part: Service, stage: int) -> None:
        policy, now = self._policies[part.name], time.monotonic()
        if not policy.is_waiting:
            if not part.is_running:
                pause_s = policy.died(now)
                self._tell(f"{part.name} ended with {describe_exit(part.exit_code)}: starts again in {pause_s:g} s")
        elif policy.is_due(now):
            if part.forgets:
                self._restart_from(stage, part)
            else:
                self._relaunch(part, policy)

    def _relaunch(self, part: Service, policy: RestartPolicy) -> None:
        """Without waiting for it to be ready: another part may have died meanwhile, even one that this one needs."""
        try:
            part.launch()
        except Fatal as error:
            self._tell(f"{error.what}: {error.why}; next try in {policy.died(time.monotonic()):g} s")
            return
        policy.started(time.monotonic())
        self._tell(f"{part.name} was started again")

    def _restart_from(self, stage: int, part: Service) -> None:
        self._tell(f"{part.name} keeps nothing over a restart: everything after it starts anew")
        self._stop_from(stage)
        self._start_from(stage)

    def _tell(self, line: str) -> None:
        self.log.line("stack", line)
        # The terminal may have been closed: no reason to leave children behind.
        with contextlib.suppress(OSError):
            self._say(line)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._stopping.is_set():
            guard.OURS.kill_all()
            os._exit(128 + number)
        self._stopping.set()


def _ready_word(part: Service) -> str:
    return "done" if part.is_one_shot else "ready"
