"""Our own commands as parts of the stack: servers with a readiness address, and steps that end by themselves."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from schemas.errors import Fatal
from streams.local.child import Child
from streams.local.log_sink import LogSink
from streams.local.ports import LOOPBACK, check_port_is_free
from streams.local.probes import http_is_ready
from streams.local.service import Service, never

# Asked at each launch: the database's password exists only once Postgres was prepared.
Environment = Callable[[], Mapping[str, str]]


class Server(Service):
    """A process that is ready when GET `path` on its loopback `port` answers 200.

    `setting` names what changes the port, for the message when it is taken. `scratch` is a folder that is emptied
    before each start (not before a restart of the process alone).
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environment: Environment,
        log: LogSink,
        *,
        port: int,
        path: str = "/readyz",
        setting: str = "",
        scratch: Path | None = None,
        ready_within_s: float = 60.0,
        stop_within_s: float = 15.0,
    ) -> None:
        super().__init__(name, log, ready_within_s=ready_within_s, stop_within_s=stop_within_s)
        self.port = port
        self._argv = argv
        self._environment = environment
        self._path = path
        self._setting = setting
        self._scratch = scratch

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def preflight(self) -> None:
        if self._setting:
            check_port_is_free(self.port, self._setting)

    def prepare(self, is_cancelled: Callable[[], bool] = never) -> None:
        if self._scratch is None or not self._scratch.exists():
            return
        try:
            shutil.rmtree(self._scratch)
        except OSError as error:
            raise Fatal(f"{self._scratch} cannot be removed", error.strerror or str(error)) from error

    def is_ready(self) -> bool:
        return http_is_ready(self.port, self._path)

    def _new_child(self) -> Child:
        return Child(self.name, self._argv, self._environment(), self._log)


class Step(Service):
    """A process that is done when it ends with exit code 0."""

    is_one_shot = True

    def __init__(self, name: str, argv: Sequence[str], environment: Environment, log: LogSink) -> None:
        super().__init__(name, log, ready_within_s=120, stop_within_s=5)
        self._argv = argv
        self._environment = environment

    def is_ready(self) -> bool:
        return self.exit_code == 0

    def await_ready(self, is_cancelled: Callable[[], bool] = never) -> None:
        super().await_ready(is_cancelled)
        self.stop()

    def _new_child(self) -> Child:
        return Child(self.name, self._argv, self._environment(), self._log)
