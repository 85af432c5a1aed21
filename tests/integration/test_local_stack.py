"""The local stack for real: its services and our commands' processes, started, watched, killed and stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.local.log_sink import LogSink
from streams.local.ports import free_port
from streams.local.up import LocalStack, build_stack
from tests.support.waiting import wait_until

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
