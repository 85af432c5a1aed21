"""Puts the local stack together: broker, Postgres, migrations, topics, gateway, workers and, on request, a stand-in
for Grok."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streams.local.data_folder import DataFolder
from streams.local.kafka import Kafka
from streams.local.log_sink import LogSink
from streams.local.ports import free_port
from streams.local.postgres import Postgres
from streams.local.processes import Environment, Server, Step
from streams.local.service import Service
from streams.local.stack import Say, Stack
from streams.local.tansu import Tansu

Broker = Literal["tansu", "kafka"]
PROGRAM = (sys.executable, "-m", "streams")
_BROKERS: dict[Broker, type[Tansu | Kafka]] = {"tansu": Tansu, "kafka": Kafka}
_OF_OTHER_BROKERS = ("KAFKA_SASL_", "KAFKA_SSL_")


@dataclass(frozen=True)
class Addresses:
    """Where the running stack is reached."""

    bootstrap_servers: str
    gateway_url: str
    worker_metrics_urls: tuple[str, ...]
    standin_url: str | None
    database: Postgres | str

    @property
    def database_url(self) -> str:
        """With the password; known once the stack has started."""
        return self.database if isinstance(self.database, str) else self.database.url


class LocalStack(Stack):
    """The stack of `grok-insights up`, with its addresses."""

    def __init__(
        self,
        stages: Sequence[Sequence[Service]],
        folder: DataFolder,
        log: LogSink,
        say: Say,
        addresses: Addresses,
    ) -> None:
        super().__init__(stages, folder, log, say)
        self.addresses = addresses


def silent(_: str) -> None:
    """The `say` of a caller with nobody to tell."""


def build_stack(
    broker: Broker,
    workers: int,
    port: int,
    data_dir: Path,
    settings_env: Mapping[str, str],
    log: LogSink,
    say: Say = silent,
    *,
    standin: bool = False,
    program: Sequence[str] = PROGRAM,
) -> LocalStack:
    """The stack, nothing started. `settings_env` are the settings of our processes, on top of our own environment.

    KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL in it are used in place of a broker or Postgres of our own. `standin` adds
    a stand-in for Grok, which the workers then ask. `program` is what the commands' names are appended to.
    """
    data_dir = data_dir.absolute()
    own_broker = None if settings_env.get("KAFKA_BOOTSTRAP_SERVERS") else _BROKERS[broker](data_dir, log)
    own_postgres = None if settings_env.get("DATABASE_URL") else Postgres(data_dir, log)
    parts = _OwnParts(
        program,
        {**os.environ, **settings_env, "DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1"},
        own_broker.bootstrap_servers if own_broker else settings_env["KAFKA_BOOTSTRAP_SERVERS"],
        own_postgres or settings_env["DATABASE_URL"],
        log,
    )
    if own_broker:
        parts.use_plain_broker()
    grok = parts.standin() if standin else None
    gateway = parts.gateway(port)
    group = [parts.worker(number, own_broker, data_dir, grok) for number in range(1, workers + 1)]
    backing: list[Service] = [part for part in (own_broker, own_postgres, grok) if part]
    stages: list[list[Service]] = [backing, [parts.step("migrate"), parts.step("topics")], [gateway, *group]]
    addresses = Addresses(
        parts.bootstrap_servers,
        gateway.url,
        tuple(f"{worker.url}/metrics" for worker in group),
        grok.url if grok else None,
        parts.database,
    )
    return LocalStack(stages, DataFolder(data_dir), log, say, addresses)


class _OwnParts:
    """Makes our own processes with the settings that they have in common."""

    def __init__(
        self,
        program: Sequence[str],
        base: dict[str, str],
        bootstrap_servers: str,
        database: Postgres | str,
        log: LogSink,
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.database = database
        self._program = program
        self._base = base
        self._log = log

    def use_plain_broker(self) -> None:
        """What is set for another broker is no use to the one started here, which has one node and no security."""
        kept = {name: value for name, value in self._base.items() if not name.startswith(_OF_OTHER_BROKERS)}
        self._base = {**kept, "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "TOPIC_REPLICATION_FACTOR": "1"}

    def step(self, command: str) -> Step:
        return Step(command, [*self._program, command], self._environment({}), self._log)

    def standin(self) -> Server:
        port = free_port()
        argv = [*self._program, "standin", "--port", str(port)]
        return Server("standin", argv, self._environment({}), self._log, port=port, path="/healthz")

    def gateway(self, port: int) -> Server:
        environment = self._environment({"GATEWAY_PORT": str(port)})
        argv = [*self._program, "gateway"]
        return Server("gateway", argv, environment, self._log, port=port, setting="--port or GATEWAY_PORT")

    def worker(self, number: int, broker: Tansu | Kafka | None, data_dir: Path, grok: Server | None) -> Server:
        port = free_port()
        # A table belongs to the broker whose changelog it follows: it lies, and goes, with that broker's data.
        folder = data_dir / (broker.name if broker else "external") / f"worker-{number}"
        more = {"WORKER_METRICS_PORT": str(port), "DATA_DIR": str(folder), **(_ask_standin(grok) if grok else {})}
        return Server(
            f"worker-{number}",
            [*self._program, "worker"],
            self._environment(more),
            self._log,
            port=port,
            scratch=folder if broker and broker.forgets else None,
        )

    def _environment(self, more: Mapping[str, str]) -> Environment:
        def environment() -> Mapping[str, str]:
            url = self.database if isinstance(self.database, str) else self.database.url
            return {**self._base, "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers, "DATABASE_URL": url, **more}

        return environment


def _ask_standin(grok: Server) -> dict[str, str]:
    url = f"{grok.url}/v1"
    return {"ANALYSER": "grok", "GROK_BASE_URL": url, "GROK_MODEL": "standin", "XAI_API_KEY": "standin"}
