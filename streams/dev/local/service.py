"""A service of the local stack: prepare, launch, become ready within a deadline, stop."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from schemas.errors import Fatal
from streams.dev.local.ports import LOOPBACK, check_port_is_free, http_is_ready
from streams.dev.local.process import Child, ProcessLog

POLL_S = 0.02
SHOWN_LINES = 8

#: Asked at each launch: Postgres has a password only once it is prepared.
Environment = Callable[[], Mapping[str, str]]


@dataclass(eq=False, repr=False)
class Service(ABC):
    """One process of the stack. `start` is `prepare`, `launch` and `await_ready`; a second `launch` is a restart.

    `is_one_shot`: the process ends by itself when its work is done.
    """

    name: str
    log: ProcessLog
    _child: Child | None = field(default=None, init=False)
    _warm_child: Child | None = field(default=None, init=False)

    is_one_shot = False
    ready_within_s = 60.0
    stop_within_s = 20.0

    @abstractmethod
    def is_ready(self) -> bool:
        """Probes the process once; never raises."""

    @abstractmethod
    def _new_child(self) -> Child:
        """Makes the process of one launch, whose program does not run yet."""

    def preflight(self) -> None:  # noqa: B027 - most services have nothing to check
        """Raises Fatal when the service cannot start here. Called for all services before the first one starts."""

    def warm_up(self) -> None:  # noqa: B027 - only our own Python programs gain from it
        """Starts a process that loads its code and waits for `launch`."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Downloads and creates what the first launch needs. Raises Fatal."""

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def is_running(self) -> bool:
        """False for a process that is only warm."""
        return self._child is not None and self._warm_child is None and self._child.is_running

    @property
    def exit_code(self) -> int | None:
        return self._child.exit_code if self._child else None

    def start(self) -> None:
        """Returns when the service is ready. Raises Fatal with its last lines, and stops it then."""
        self.prepare()
        try:
            self.launch()
            self.await_ready()
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """Starts the process, or lets the warm one run, and returns at once."""
        child, self._warm_child = self._warm_child or self._spawn(), None
        child.send(self._input())

    def await_ready(self) -> None:
        """Waits for `is_ready`. Raises Fatal when the process ends or is not ready within `ready_within_s`."""
        deadline = time.monotonic() + self.ready_within_s
        while True:
            was_running = self.is_running
            if self.is_ready():
                return
            what = "failed" if self.is_one_shot else "did not start"
            if not was_running:
                raise self._failure(what, f"it ended with {describe_exit(self.exit_code)}")
            if time.monotonic() > deadline:
                raise self._failure(what, f"it did not become ready within {self.ready_within_s:g} s")
            time.sleep(POLL_S)

    def check_running(self) -> None:
        """Raises Fatal, with its last lines, when a process has ended that should not."""
        if not self.is_one_shot and not self.is_running:
            raise self._failure("has ended", describe_exit(self.exit_code))

    def ask_to_stop(self) -> None:
        """Sends the stop signal and returns; `stop` follows."""
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self) -> None:
        """Asks the process to stop, waits `stop_within_s`, kills what is left. Safe to call again."""
        if self._child is not None:
            self._child.terminate(self.stop_within_s)

    def _input(self) -> bytes:
        """Returns what the process reads from standard input."""
        return b""

    def _spawn(self) -> Child:
        """Starts a new process, after ending what is left of an earlier one and its group."""
        if self._child is not None:
            self._child.terminate(0)
            self._child = None
        try:
            self._child = self._new_child()
        except OSError as error:
            raise Fatal(f"{self.name} could not be started", error.strerror or str(error)) from error
        self._child.run()
        return self._child

    def _failure(self, what: str, why: str) -> Fatal:
        if self._child is not None and not self._child.is_running:
            self._child.terminate(0)  # so that its last lines are in the log
        return failure(f"{self.name} {what}", why, self.name, self.log)


@dataclass(eq=False, repr=False)
class Server(Service):
    """One of our own servers, ready when GET `path` on its loopback `port` answers 200.

    It reads its environment as JSON from standard input, so that it can load its code before the environment is known.
    `setting` names what changes the port: a port that can be chosen is checked before anything starts.
    """

    argv: Sequence[str]
    environment: Environment
    port: int
    path: str = "/readyz"
    setting: str = ""

    stop_within_s = 15.0

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def preflight(self) -> None:
        if self.setting:
            check_port_is_free(self.port, self.setting)

    def warm_up(self) -> None:
        self._warm_child = self._spawn()

    def is_ready(self) -> bool:
        return http_is_ready(self.port, self.path)

    def _new_child(self) -> Child:
        return Child(self.name, self.argv, {**os.environ, "PYTHONUNBUFFERED": "1"}, self.log)

    def _input(self) -> bytes:
        return orjson.dumps(dict(self.environment()))


@dataclass(eq=False, repr=False)
class Step(Service):
    """A process that is done when it ends with exit code 0. `before` is called before it starts."""

    new_child: Callable[[], Child]
    stdin: bytes = b""
    before: Callable[[], None] = lambda: None

    is_one_shot = True
    ready_within_s = 120.0
    stop_within_s = 2.0

    def prepare(self) -> None:
        self.before()

    def is_ready(self) -> bool:
        return self.exit_code == 0

    def await_ready(self) -> None:
        super().await_ready()
        self.stop()

    def _new_child(self) -> Child:
        return self.new_child()

    def _input(self) -> bytes:
        return self.stdin


def failure(what: str, why: str, name: str, log: ProcessLog) -> Fatal:
    """Returns a Fatal with the last lines of the process `name` and the path of the whole log."""
    lines = log.tail(name, SHOWN_LINES)
    shown = "".join(f"\n  {line}" for line in lines)
    return Fatal(what, f"{why}; its last lines:{shown}" if lines else why, f"the whole log is {log.path}")


def describe_exit(code: int | None) -> str:
    """Returns an exit code in words: "exit code 3", "signal 9"."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
