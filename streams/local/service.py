"""What the parts of the stack share: prepare, launch, become ready by a deadline, stop."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from schemas.errors import Fatal
from streams.local.child import Child
from streams.local.log_sink import LogSink

POLL_S = 0.05
SHOWN_LINES = 8


class Interrupted(Exception):
    """A person asked us to stop while something was still starting."""


def never() -> bool:
    """The `is_cancelled` of callers that cannot be asked to stop."""
    return False


class Service(ABC):
    """A long-running part. `start` is `prepare`, `launch` and `await_ready`; a restart is only `launch`.

    `forgets` says that a new process knows nothing of what the earlier one held, so all that came after it must start
    anew too. `is_one_shot` says that the process ends by itself when its work is done.
    """

    forgets = False
    is_one_shot = False

    def __init__(self, name: str, log: LogSink, *, ready_within_s: float = 30.0, stop_within_s: float = 10.0) -> None:
        self.name = name
        self.ready_within_s = ready_within_s
        self.stop_within_s = stop_within_s
        self._log = log
        self._child: Child | None = None

    @abstractmethod
    def is_ready(self) -> bool:
        """One real question to the process; never raises."""

    @abstractmethod
    def _new_child(self) -> Child:
        """The process of one launch, not started."""

    def preflight(self) -> None:  # noqa: B027 - most parts have nothing to check
        """Raises Fatal when the part cannot start here; asked of all parts before the first one starts."""

    def prepare(self, is_cancelled: Callable[[], bool] = never) -> None:  # noqa: B027 - most parts have nothing to prepare
        """What must be there before the first launch: downloads, data folders. Raises Fatal or Interrupted."""

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.is_running

    @property
    def exit_code(self) -> int | None:
        return self._child.exit_code if self._child else None

    def start(self, is_cancelled: Callable[[], bool] = never) -> None:
        """Returns when the part is ready. Raises Fatal (with its last lines) or Interrupted, with nothing running."""
        self.prepare(is_cancelled)
        self.launch()
        try:
            self.await_ready(is_cancelled)
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """Start the process and return at once; what an earlier one left of its group is ended first."""
        if self._child is not None:
            self._child.terminate(0)
        self._child = self._new_child()
        try:
            self._child.start()
        except OSError as error:
            self._child = None
            raise Fatal(f"{self.name} could not be started", error.strerror or str(error)) from error

    def await_ready(self, is_cancelled: Callable[[], bool] = never) -> None:
        """Wait for `is_ready`, at most `ready_within_s` seconds; raises Fatal when it ends or stays silent."""
        deadline = time.monotonic() + self.ready_within_s
        while True:
            was_running = self.is_running
            if self.is_ready():
                return
            if is_cancelled():
                raise Interrupted(self.name)
            if not was_running:
                raise self._failure(f"it ended with {describe_exit(self.exit_code)}")
            if time.monotonic() > deadline:
                raise self._failure(f"it did not become ready within {self.ready_within_s:g} s")
            time.sleep(POLL_S)

    def ask_to_stop(self) -> None:
        """Begin to stop without waiting for it; `stop` follows."""
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self) -> None:
        """Ask the process to stop, wait `stop_within_s`, kill what is left. Safe to call again."""
        if self._child is not None:
            self._child.terminate(self.stop_within_s)

    def _failure(self, why: str) -> Fatal:
        if self._child is not None and not self._child.is_running:
            self._child.terminate(0)  # so that its last lines are in the log
        return failure(f"{self.name} did not start", why, self.name, self._log)


def run_to_end(child: Child, log: LogSink, within_s: float, is_cancelled: Callable[[], bool] = never) -> None:
    """Run a step that ends by itself. Raises Fatal unless it ends with 0 in time, Interrupted when cancelled."""
    child.start()
    deadline = time.monotonic() + within_s
    try:
        while (code := child.wait(POLL_S)) is None:
            if is_cancelled():
                raise Interrupted(child.name)
            if time.monotonic() > deadline:
                raise failure(f"{child.name} failed", f"it did not end within {within_s:g} s", child.name, log)
    finally:
        child.terminate(2)
    if code != 0:
        raise failure(f"{child.name} failed", f"it ended with {describe_exit(code)}", child.name, log)


def failure(what: str, why: str, name: str, log: LogSink) -> Fatal:
    """A Fatal that shows the last lines of the child `name` and says where the rest is."""
    lines = log.tail(name, SHOWN_LINES)
    shown = "".join(f"\n  {line}" for line in lines)
    return Fatal(what, f"{why}; its last lines:{shown}" if lines else why, f"the whole log is {log.path}")


def describe_exit(code: int | None) -> str:
    """An exit code in words: "exit code 3", "signal 9"."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
