"""The local stack with real services and substitutes for our commands: started, watched, killed and stopped."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streams.dev.local.ports import free_port
from streams.dev.local.process import ProcessLog
from streams.dev.local.wiring import build_stack
from tests.support.waiting import wait_until

# In place of our commands: saves its environment, then serves 200 for every path or ends at once.
PROGRAM = """
import http.server, json, os, sys
command = sys.argv[1]
environment = sys.stdin.buffer.read()
if environment:
    os.environ.clear()
    os.environ.update(json.loads(environment))
folder = os.environ["NOTES"]
with open(f"{folder}/{command}-{os.path.basename(os.environ['DATA_DIR'])}.json", "w") as file:
    json.dump({**os.environ, "ARGV": " ".join(sys.argv[1:])}, file)
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

# In place of `grok-insights up`: takes folder, broker, port and program; prints the pids of its processes.
UP = """
import json, os, sys
from pathlib import Path
from streams.dev.local.process import ProcessLog
from streams.dev.local.wiring import build_stack

data, broker, port, *program = sys.argv[1:]
log = ProcessLog(Path(data) / "logs" / "stack.log")
stack = build_stack(broker, 2, int(port), Path(data), {"NOTES": os.environ["NOTES"]}, log, program=program)
stack.run_until_signal(lambda: print(json.dumps({service.name: service.pid for service in stack.services}), flush=True))
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def program(tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("NOTES", str(notes))
    return [sys.executable, "-S", str(tmp_path / "program.py")]


@pytest.fixture
def running_up(program: list[str], data_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs the stack, as a person at a terminal would."""
    argv = [sys.executable, "-c", UP, str(data_dir), "tansu", str(free_port()), *program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def is_alive(process: psutil.Process) -> bool:
    """Returns False for a zombie, which has ended but was not reaped yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Postgres's own children and the reaper are among them."""
    return psutil.Process(process.pid).children(recursive=True)


def children_of(process: "subprocess.Popen[str]") -> dict[str, int]:
    """Returns the pids by name that the script prints once its stack is ready."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    children: dict[str, int] = json.loads(line)
    return children


def test_the_stack_gives_each_process_its_settings(
    data_dir: Path, log: ProcessLog, program: list[str], notes: Path
) -> None:
    """It gets its addresses, and neither settings for another broker nor the tables of the last run."""
    old = data_dir / "tansu" / "worker-1" / "table"
    old.mkdir(parents=True)
    settings = {"KAFKA_SASL_PASSWORD": "secret", "TOPIC_REPLICATION_FACTOR": "3", "GROK_RPM": "60"}
    stack = build_stack(
        "tansu", 2, free_port(), data_dir, settings, log, standin=True, accept_dead_letters=1_500, program=program
    )
    with stack:
        noted = json.loads((notes / "worker-worker-1.json").read_text())
        expected = {
            "KAFKA_BOOTSTRAP_SERVERS": stack.addresses.bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "TOPIC_REPLICATION_FACTOR": "1",
            "DATABASE_URL": stack.addresses.database_url,
            "DATA_DIR": str(data_dir / "tansu" / "worker-1"),
            "GROK_BASE_URL": f"{stack.addresses.standin_url}/v1",
            "ANALYSER": "grok",
            "KAFKA_SESSION_TIMEOUT_S": "2",
            "GROK_RPM": "60",
            "ARGV": "worker --accept-dead-letters 1500",
        }
        assert expected.items() <= noted.items()
        assert "KAFKA_SASL_PASSWORD" not in noted
        assert not old.exists()
        assert len(set(stack.addresses.worker_metrics_urls)) == 2


def test_existing_services_are_used(data_dir: Path, log: ProcessLog, program: list[str], notes: Path) -> None:
    """With the addresses of a broker and a database only our own processes start, and no timeout is changed."""
    given = {"KAFKA_BOOTSTRAP_SERVERS": "broker:9092", "DATABASE_URL": "postgresql://db/x"}
    with build_stack("tansu", 1, free_port(), data_dir, given, log, program=program) as stack:
        assert [service.name for service in stack.services] == ["migrate", "topics", "gateway", "worker-1"]
        assert stack.addresses.bootstrap_servers == "broker:9092"
        assert stack.addresses.database_url == "postgresql://db/x"
        assert "KAFKA_SESSION_TIMEOUT_S" not in json.loads((notes / "worker-worker-1.json").read_text())


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_stops_everything(running_up: "subprocess.Popen[str]", number: int) -> None:
    """Exit code 0, and no process of the stack is left."""
    children = children_of(running_up)
    family = descendants_of(running_up)
    assert {children[name] for name in ("tansu", "postgres", "gateway", "worker-1", "worker-2")} < {
        process.pid for process in family
    }
    running_up.send_signal(number)
    assert running_up.wait(30) == 0
    assert [process for process in family if is_alive(process)] == []


def test_nothing_is_left_when_the_stack_is_killed(running_up: "subprocess.Popen[str]") -> None:
    """After SIGKILL for the stack its processes end too, Postgres's own children included."""
    children_of(running_up)
    family = descendants_of(running_up)
    running_up.kill()
    wait_until(lambda: not any(map(is_alive, family)))


def test_a_second_signal_ends_everything_at_once(running_up: "subprocess.Popen[str]", data_dir: Path) -> None:
    """A process that does not stop cannot keep a person waiting."""
    frozen = children_of(running_up)["worker-2"]
    family = descendants_of(running_up)
    os.kill(frozen, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(frozen).status() == psutil.STATUS_STOPPED)
    running_up.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping worker-2" in (data_dir / "logs" / "stack.log").read_text())
    running_up.send_signal(signal.SIGINT)
    assert running_up.wait(5) == 128 + signal.SIGINT
    wait_until(lambda: not any(map(is_alive, family)))


@pytest.mark.parametrize("name", ["tansu", "postgres", "worker-2"])
def test_a_process_that_ends_stops_everything(running_up: "subprocess.Popen[str]", name: str) -> None:
    """Exit code 1 with its name, and no process of the stack is left."""
    children = children_of(running_up)
    family = descendants_of(running_up)
    os.kill(children[name], signal.SIGKILL)
    _, shown = running_up.communicate(timeout=30)
    assert running_up.returncode == 1
    assert f"{name} has ended" in shown
    assert [process for process in family if is_alive(process)] == []
