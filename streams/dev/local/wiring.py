"""Builds the local stack: broker, Postgres, migrations, topics, gateway, workers and optionally the stand-in."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streams.dev.local.child import Child
from streams.dev.local.kafka import Kafka
from streams.dev.local.ports import free_port
from streams.dev.local.postgres import Postgres
from streams.dev.local.process_log import ProcessLog
from streams.dev.local.service import Environment, Server, Service, Step
from streams.dev.local.stack import DataFolder, Say, Stack
from streams.dev.local.tansu import Tansu

Broker = Literal["tansu", "kafka"]
#: The names of commands are appended. Servers are preloaded; see streams.preload.
SERVER_PROGRAM = (sys.executable, "-m", "streams.preload")
STEP_PROGRAM = (sys.executable, "-m", "streams")
#: Tansu delays every join by half the session timeout, rounded up to whole seconds.
TANSU_SESSION_TIMEOUT_S = 2
_BROKERS: dict[Broker, type[Tansu | Kafka]] = {"tansu": Tansu, "kafka": Kafka}
_SETTINGS_OF_OTHER_BROKERS = ("KAFKA_SASL_", "KAFKA_SSL_")


@dataclass(frozen=True)
class Addresses:
    """The addresses of the running stack."""

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

    addresses: Addresses


def build_stack(
    broker: Broker,
    workers: int,
    port: int,
    data_dir: Path,
    settings_env: Mapping[str, str],
    log: ProcessLog,
    say: Say = lambda _: None,
    *,
    standin: bool = False,
    program: Sequence[str] | None = None,
) -> LocalStack:
    """Returns the stack, not started. `settings_env` are settings of our processes, on top of our own environment.

    KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL in it replace a broker or Postgres of our own. `standin` adds a stand-in for
    Grok, which the workers then ask. `program` replaces SERVER_PROGRAM and STEP_PROGRAM.
    """
    data_dir = data_dir.absolute()
    own_broker = None if settings_env.get("KAFKA_BOOTSTRAP_SERVERS") else _BROKERS[broker](data_dir, log)
    own_postgres = None if settings_env.get("DATABASE_URL") else Postgres(data_dir, log)
    commands = _Commands(
        _base_settings(own_broker, settings_env, data_dir),
        own_broker.bootstrap_servers if own_broker else settings_env["KAFKA_BOOTSTRAP_SERVERS"],
        own_postgres or settings_env["DATABASE_URL"],
        log,
        program or SERVER_PROGRAM,
        program or STEP_PROGRAM,
    )
    grok = commands.standin() if standin else None
    gateway = commands.gateway(port)
    group = [commands.worker(number, own_broker, data_dir, grok) for number in range(1, workers + 1)]
    backing: list[Service] = [service for service in (own_broker, own_postgres, grok) if service]
    stages: list[list[Service]] = [backing, [commands.step("migrate"), commands.step("topics")], [gateway, *group]]
    stack = LocalStack(stages, DataFolder(data_dir), log, say)
    stack.addresses = Addresses(
        commands.bootstrap_servers,
        gateway.url,
        tuple(f"{worker.url}/metrics" for worker in group),
        grok.url if grok else None,
        commands.database,
    )
    return stack


def _base_settings(own_broker: Tansu | Kafka | None, settings_env: Mapping[str, str], data_dir: Path) -> dict[str, str]:
    """Returns the environment that all our processes share.

    Settings for other brokers are removed for one of our own, which has one node and no security.
    """
    base = {**os.environ, **settings_env, "DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1"}
    if own_broker is not None:
        base = {name: value for name, value in base.items() if not name.startswith(_SETTINGS_OF_OTHER_BROKERS)}
        base |= {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "TOPIC_REPLICATION_FACTOR": "1"}
    if isinstance(own_broker, Tansu):
        base.setdefault("KAFKA_SESSION_TIMEOUT_S", str(TANSU_SESSION_TIMEOUT_S))
    return base


@dataclass(frozen=True)
class _Commands:
    """Makes services of our own commands, with the settings that they share."""

    base: Mapping[str, str]
    bootstrap_servers: str
    database: Postgres | str
    log: ProcessLog
    server_program: Sequence[str]
    step_program: Sequence[str]

    def step(self, command: str) -> Step:
        argv, environment = [*self.step_program, command], self._environment({})
        return Step(command, lambda: Child(command, argv, environment(), self.log), self.log)

    def standin(self) -> Server:
        port = free_port()
        argv = [*self.server_program, "standin", "--port", str(port)]
        return Server("standin", argv, self._environment({}), self.log, port=port, path="/healthz")

    def gateway(self, port: int) -> Server:
        argv, environment = [*self.server_program, "gateway"], self._environment({"GATEWAY_PORT": str(port)})
        return Server("gateway", argv, environment, self.log, port=port, setting="--port or GATEWAY_PORT")

    def worker(self, number: int, broker: Tansu | Kafka | None, data_dir: Path, grok: Server | None) -> Server:
        port = free_port()
        # A table belongs to the broker whose changelog it follows: it is kept, and removed, with that broker's data.
        folder = data_dir / (broker.name if broker else "external") / f"worker-{number}"
        own = {"WORKER_METRICS_PORT": str(port), "DATA_DIR": str(folder), **(_standin_settings(grok) if grok else {})}
        return Server(
            f"worker-{number}",
            [*self.server_program, "worker"],
            self._environment(own),
            self.log,
            port=port,
            scratch=folder if broker and broker.loses_data else None,
        )

    def _environment(self, own: Mapping[str, str]) -> Environment:
        def environment() -> Mapping[str, str]:
            url = self.database if isinstance(self.database, str) else self.database.url
            return {**self.base, "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers, "DATABASE_URL": url, **own}

        return environment


def _standin_settings(grok: Server) -> dict[str, str]:
    url = f"{grok.url}/v1"
    return {"ANALYSER": "grok", "GROK_BASE_URL": url, "GROK_MODEL": "standin", "XAI_API_KEY": "standin"}
