"""Apache Kafka in KRaft mode, nodes on loopback without Docker: durable, their data outlives a restart."""

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import Fatal
from streams.local.child import Child
from streams.local.kafka_jars import fetch_jars, has_jars, jars_dir, java, maven
from streams.local.log_sink import LogSink
from streams.local.ports import LOOPBACK, check_port_is_free, free_port
from streams.local.probes import kafka_has_broker
from streams.local.service import Service, never, run_to_end

# Short-lived nodes on a laptop: the serial collector and the first compiler only start 1-3 s sooner and take half
# the memory, for 15 % less peak throughput.
_JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]

_PROPERTIES = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={min_in_sync}
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={min_in_sync}
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={min_in_sync}
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


def new_cluster_id() -> str:
    """A random id of the form that Kafka wants: 22 letters of base 64."""
    # Kafka takes an id that begins with a dash for an option.
    return "A" + base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")[1:]


@dataclass(frozen=True, slots=True)
class Node:
    """A node's place in its cluster; by default it is a cluster of its own.

    `controller_ports` are those of all nodes by node id, `replicas` and `min_in_sync` hold for new topics and Kafka's
    own ones. Every node is both broker and controller; all need the same `cluster_id`.
    """

    node_id: int = 1
    controller_ports: Mapping[int, int] = field(default_factory=lambda: {1: free_port()})
    cluster_id: str = field(default_factory=new_cluster_id)
    replicas: int = 1
    min_in_sync: int = 1
    max_heap_mb: int = 512

    @property
    def voters(self) -> str:
        """As controller.quorum.voters wants them."""
        return ",".join(f"{node}@{LOOPBACK}:{port}" for node, port in self.controller_ports.items())


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
    """One node, its data in `data_dir`/kafka. `port` 0 takes any free one; without `node` it is a whole cluster."""

    def __init__(self, data_dir: Path, log: LogSink, port: int = 0, node: Node | None = None) -> None:
        super().__init__(f"kafka-{node.node_id}" if node else "kafka", log, ready_within_s=90, stop_within_s=20)
        self._node = node or Node()
        self._folder = (data_dir / "kafka").absolute()
        self._jars = Path()
        self._wanted_port = port
        self.port = port or free_port()

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
        heap = ("-Xms64m", f"-Xmx{self._node.max_heap_mb}m")
        return self._java(self.name, *heap, logging, "kafka.Kafka", str(self._folder / "server.properties"))

    def _configure(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        node = self._node
        properties = _PROPERTIES.format(
            host=LOOPBACK,
            port=self.port,
            controller_port=node.controller_ports[node.node_id],
            node_id=node.node_id,
            voters=node.voters,
            replicas=node.replicas,
            min_in_sync=node.min_in_sync,
            data=self._folder / "data",
        )
        (self._folder / "server.properties").write_text(properties)
        (self._folder / "log4j2.properties").write_text(_LOGGING)

    def _format(self, is_cancelled: Callable[[], bool]) -> None:
        arguments = ["format", "-t", self._node.cluster_id, "-c", str(self._folder / "server.properties")]
        child = self._java(f"{self.name}-format", "-Xmx128m", "kafka.tools.StorageTool", *arguments)
        run_to_end(child, self._log, 60, is_cancelled)

    def _java(self, name: str, *arguments: str) -> Child:
        argv = [java(), *_JVM, "-cp", f"{self._jars}/*", *arguments]
        return Child(name, argv, {"PATH": os.environ.get("PATH", os.defpath)}, self._log, cwd=self._folder)
