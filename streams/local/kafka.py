"""Apache Kafka in KRaft mode, a single node on loopback without Docker: durable, its data outlives a restart."""

import base64
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from schemas.errors import Fatal
from streams.local.child import Child
from streams.local.kafka_jars import fetch_jars, has_jars, jars_dir, java, maven
from streams.local.log_sink import LogSink
from streams.local.ports import LOOPBACK, check_port_is_free, free_port
from streams.local.probes import kafka_has_broker
from streams.local.service import Service, never, run_to_end

# One short-lived node on a laptop: the serial collector and the first compiler only start 1-3 s sooner and take half
# the memory, for 15 % less peak throughput.
_JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_HEAP = ["-Xms64m", "-Xmx512m"]

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
controlled.shutdown.enable=true
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=8388608
"""

_LOGGING = """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=[%d] %p %m (%c)%n
rootLogger=WARN, out
"""


def kafka_available() -> str | None:
    """Why Apache Kafka cannot run here, or None when it can; fetches nothing."""
    try:
        java()
        if not has_jars(jars_dir()):
            maven()
    except Fatal as error:
        return f"{error.what}: {error.why}"
    return None


class Kafka(Service):
    """One broker that is its own controller, its data in `data_dir`/kafka. `port` 0 takes any free one."""

    def __init__(self, data_dir: Path, log: LogSink, port: int = 0) -> None:
        super().__init__("kafka", log, ready_within_s=90, stop_within_s=20)
        self._folder = (data_dir / "kafka").absolute()
        self._jars = Path()
        self._wanted_port = port
        self.port = port or free_port()
        self._controller_port = free_port()

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def preflight(self) -> None:
        java()
        if not has_jars(jars_dir()):
            maven()
        if self._wanted_port:
            check_port_is_free(self._wanted_port, "the broker's port")

    def prepare(self, is_cancelled: Callable[[], bool] = never) -> None:
        self._jars = fetch_jars(self._log, is_cancelled)
        try:
            self._configure()
        except OSError as error:
            raise Fatal("Kafka's data folder cannot be written", f"{self._folder}: {error.strerror}") from error
        if not (self._folder / "data" / "meta.properties").exists():
            self._format(is_cancelled)

    def is_ready(self) -> bool:
        return kafka_has_broker(self.port)

    def _new_child(self) -> Child:
        logging = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}"
        return self._java(self.name, *_HEAP, logging, "kafka.Kafka", str(self._folder / "server.properties"))

    def _configure(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        ports = {"host": LOOPBACK, "port": self.port, "controller_port": self._controller_port}
        properties = _PROPERTIES.format(**ports, data=self._folder / "data")
        (self._folder / "server.properties").write_text(properties)
        (self._folder / "log4j2.properties").write_text(_LOGGING)

    def _format(self, is_cancelled: Callable[[], bool]) -> None:
        cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        # Kafka takes an id that begins with a dash for an option.
        arguments = ["format", "-t", "A" + cluster_id[1:], "-c", str(self._folder / "server.properties")]
        child = self._java("kafka-format", "-Xmx128m", "kafka.tools.StorageTool", *arguments)
        run_to_end(child, self._log, 60, is_cancelled)

    def _java(self, name: str, *arguments: str) -> Child:
        argv = [java(), *_JVM, "-cp", f"{self._jars}/*", *arguments]
        return Child(name, argv, {"PATH": os.environ.get("PATH", os.defpath)}, self._log, cwd=self._folder)
