"""Builds the local stack: broker, Postgres, migrations, topics, gateway, workers and optionally the stand-in."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from schemas.settings import Settings
from streams.dev.local.brokers import Broker, Kafka, Tansu
from streams.dev.local.ports import free_port
from streams.dev.local.postgres import DATABASE, Postgres, set_rows_aside
from streams.dev.local.process import Child, ProcessLog
from streams.dev.local.service import Environment, Server, Service, Step
from streams.dev.local.stack import Say, Stack

BrokerName = Literal["tansu", "kafka"]
#: The names of commands are appended. Servers are preloaded; see streams.preload.
SERVER_PROGRAM = (sys.executable, "-m", "streams.preload")
STEP_PROGRAM = (sys.executable, "-m", "streams")
#: Tansu delays every join by half the session timeout, rounded up to whole seconds.
TANSU_SESSION_TIMEOUT_S = 2
_BROKERS: dict[BrokerName, type[Tansu | Kafka]] = {"tansu": Tansu, "kafka": Kafka}
#: A worker with the default session timeout beside those of 2 s made Tansu rebalance every 4 s, as long as it ran. The
#: default is among them, too: a terminal may still have the value of a stack on Tansu.
_SETTINGS_OF_OUR_BROKER = ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_SESSION_TIMEOUT_S")
_SETTINGS_OF_OTHER_BROKERS = ("KAFKA_SASL_", "KAFKA_SSL_")


@dataclass(frozen=True)
class Addresses:
    """The addresses of the running stack.

    `kafka_settings` are those of its own broker, empty for one of the user's. `analyser_settings` are what a worker
    needs to analyse as those of the stack do, without a key for Grok.
    """

    bootstrap_servers: str
    kafka_settings: Mapping[str, str]
    analyser_settings: Mapping[str, str]
    gateway_url: str
    worker_metrics_urls: tuple[str, ...]
    standin_url: str | None
    database: Postgres | str

    @property
    def database_url(self) -> str:
        """With the password; known once the stack has started."""
        return self.database if isinstance(self.database, str) else self.database.url

    @property
    def chosen_settings(self) -> dict[str, str]:
        """The settings that the stack chose itself, and any other process needs; known once the stack has started."""
        database = {} if isinstance(self.database, str) else {"DATABASE_URL": self.database.url}
        return {**self.kafka_settings, **database, **self.analyser_settings}


class LocalStack(Stack):
    """The stack of `grok-insights up`, with its addresses."""

    addresses: Addresses


def build_stack(
    broker_name: BrokerName,
    workers: int,
    port: int,
    data_dir: Path,
    settings_env: Mapping[str, str],
    log: ProcessLog,
    say: Say = lambda _: None,
    *,
    standin: bool = False,
    accept_dead_letters: int = 0,
    program: Sequence[str] | None = None,
) -> LocalStack:
    """Returns the stack, not started. `settings_env` are settings of our processes, on top of our own environment.

    KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL in it replace a broker or Postgres of our own. `standin` adds a stand-in for
    Grok, which the workers then ask. Each worker accepts `accept_dead_letters` before its limit counts. `program`
    replaces SERVER_PROGRAM and STEP_PROGRAM.
    """
    data_dir = data_dir.absolute()
    broker = None if settings_env.get("KAFKA_BOOTSTRAP_SERVERS") else _BROKERS[broker_name](data_dir, log)
    # Rows belong to the records of one broker: Kafka's, which last, never meet those of Tansu.
    database = f"{DATABASE}_tansu" if isinstance(broker, Tansu) else DATABASE
    postgres = None if settings_env.get("DATABASE_URL") else Postgres(data_dir, log, database)
    shared = _shared_settings(broker, settings_env, data_dir)
    commands = _Commands(shared, postgres, log, program or SERVER_PROGRAM, program or STEP_PROGRAM)
    grok = commands.standin() if standin else None
    gateway = commands.gateway(port)
    analyser = _analyser_settings(shared, grok)
    arguments = ["--accept-dead-letters", str(accept_dead_letters)] if accept_dead_letters else []
    group = [commands.worker(number, broker, data_dir, analyser, arguments) for number in range(1, workers + 1)]
    backing: list[Service] = [service for service in (broker, postgres, grok) if service]

    def forget_rows() -> None:
        """An empty broker starts with an empty table: the audit would report rows without their records."""
        if isinstance(broker, Tansu) and postgres is not None:
            schema = set_rows_aside(postgres.url, datetime.now(UTC))
            if schema is not None:
                log.line("stack", f"tansu starts empty: the rows of earlier starts are now in the schema {schema}")

    # Topics that were given more partitions are used as they are, unless the user names a number.
    grows = isinstance(broker, Kafka) and not shared.get("TOPIC_PARTITIONS")
    preparation = [
        commands.step("migrate", before=forget_rows),
        commands.step("topics", *(["--grow"] if grows else [])),
    ]
    stack = LocalStack([backing, preparation, [gateway, *group]], data_dir, log, say)
    stack.addresses = Addresses(
        shared["KAFKA_BOOTSTRAP_SERVERS"],
        {name: shared[name] for name in _SETTINGS_OF_OUR_BROKER} if broker else {},
        analyser,
        gateway.url,
        tuple(f"{worker.url}/metrics" for worker in group),
        grok.url if grok else None,
        postgres or settings_env["DATABASE_URL"],
    )
    return stack


def _shared_settings(broker: Broker | None, settings_env: Mapping[str, str], data_dir: Path) -> dict[str, str]:
    """Returns the environment that all our processes share.

    Settings for other brokers are removed for one of our own, which has one node and no security.
    """
    shared = {**os.environ, **settings_env, "DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1"}
    if broker is not None:
        shared = {name: value for name, value in shared.items() if not name.startswith(_SETTINGS_OF_OTHER_BROKERS)}
        shared["KAFKA_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
        shared |= {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "TOPIC_REPLICATION_FACTOR": "1"}
        default_s = Settings.model_fields["kafka_session_timeout_s"].default
        session_timeout_s = TANSU_SESSION_TIMEOUT_S if isinstance(broker, Tansu) else default_s
        shared["KAFKA_SESSION_TIMEOUT_S"] = shared.get("KAFKA_SESSION_TIMEOUT_S") or str(session_timeout_s)
    return shared


def _analyser_settings(shared: Mapping[str, str], grok: Server | None) -> dict[str, str]:
    """Returns the settings of the workers' analyser. Only the stand-in's key is among them: it is not secret."""
    if grok is not None:
        standin = {"ANALYSER": "grok", "GROK_BASE_URL": f"{grok.url}/v1"}
        return {**standin, "GROK_MODEL": "standin", "XAI_API_KEY": "standin"}
    names = ["ANALYSER"] if shared.get("ANALYSER") == "local" else ["ANALYSER", "GROK_BASE_URL", "GROK_MODEL"]
    return {name: shared[name] for name in names if shared.get(name)}


@dataclass(frozen=True)
class _Commands:
    """Makes services of our own commands, with the settings that they share."""

    shared: Mapping[str, str]
    postgres: Postgres | None
    log: ProcessLog
    server_program: Sequence[str]
    step_program: Sequence[str]

    def step(self, command: str, *arguments: str, before: Callable[[], None] = lambda: None) -> Step:
        argv, environment = [*self.step_program, command, *arguments], self._environment({})
        return Step(command, self.log, lambda: Child(command, argv, environment(), self.log), before=before)

    def standin(self) -> Server:
        port = free_port()
        argv = [*self.server_program, "standin", "--port", str(port)]
        return Server("standin", self.log, argv, self._environment({}), port, path="/healthz")

    def gateway(self, port: int) -> Server:
        argv, environment = [*self.server_program, "gateway"], self._environment({"GATEWAY_PORT": str(port)})
        return Server("gateway", self.log, argv, environment, port, setting="--port or GATEWAY_PORT")

    def worker(
        self,
        number: int,
        broker: Broker | None,
        data_dir: Path,
        analyser: Mapping[str, str],
        arguments: Sequence[str],
    ) -> Server:
        port = free_port()
        # A table belongs to the broker whose changelog it follows: it is kept, and removed, with that broker's data.
        folder = data_dir / (broker.name if broker else "external") / f"worker-{number}"
        own = {"WORKER_METRICS_PORT": str(port), "DATA_DIR": str(folder), **analyser}
        argv = [*self.server_program, "worker", *arguments]
        return Server(f"worker-{number}", self.log, argv, self._environment(own), port)

    def _environment(self, own: Mapping[str, str]) -> Environment:
        def environment() -> Mapping[str, str]:
            database = {"DATABASE_URL": self.postgres.url} if self.postgres else {}
            return {**self.shared, **database, **own}

        return environment
