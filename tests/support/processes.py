"""The whole service as processes, for tests: workers and the stand-in on a given broker and database."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from streams.dev.local.ports import free_port
from streams.dev.local.process import release_group, watch_group
from streams.kafka.admin import create_topics
from tests.support.topics import topics_with
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PARTITIONS = 4


def get(url: str) -> tuple[int, bytes]:
    """Returns status and body; (0, b"") while nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310  loopback only
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


class Process:
    """One of our commands with its own port; its log is in the test's folder."""

    def __init__(
        self,
        folder: Path,
        name: str,
        arguments: Iterable[str],
        settings: Mapping[str, str],
        *,
        is_own: bool = True,
    ) -> None:
        """`arguments` are those of grok-insights, or a whole command where it is not our own."""
        self.log = folder / f"{name}.log"
        environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "streams", *arguments] if is_own else list(arguments)
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        #: The address of its metrics and health, where `Service.start_worker` started it.
        self.url = ""
        watch_group(self.process.pid)

    def events(self) -> list[dict[str, Any]]:
        """Returns its log, every line of which must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def kill(self) -> None:
        """Sends SIGKILL, so nothing is cleaned up."""
        self.process.kill()
        self.process.wait()
        release_group(self.process.pid)

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code; kills a process that does not end within 15 s and returns -9."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL
        release_group(self.process.pid)
        return code


class Service:
    """Starts processes with common settings; use as a context manager, which ends them all.

    With a `prefix`, several services share a broker; `topics` are the names it results in.
    """

    def __init__(
        self, folder: Path, bootstrap_servers: str, database_url: str, *, prefix: str = "", **settings: str
    ) -> None:
        self.folder = folder
        self.bootstrap_servers = bootstrap_servers
        self.topics = topics_with(prefix)
        self.settings = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "DATABASE_URL": database_url,
            "TOPIC_PREFIX": prefix,
            "TOPIC_PARTITIONS": str(PARTITIONS),
            **settings,
        }
        self.processes: list[Process] = []
        self.standin_port = 0
        self.gateway_url = ""

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.kill()

    def run(self, *arguments: str) -> None:
        """Runs a command that must end with exit code 0."""
        assert self.start(arguments[0], *arguments).process.wait(60) == 0

    def create_topics(self) -> None:
        """Creates the topics as the command does, without starting a process."""
        asyncio.run(create_topics({"bootstrap_servers": self.bootstrap_servers}, self.topics, PARTITIONS, 1))

    def start(self, name: str, *arguments: str, **settings: str) -> Process:
        process = Process(self.folder, name, arguments, {**self.settings, **settings})
        self.processes.append(process)
        return process

    def start_command(self, name: str, command: Iterable[str], **settings: str) -> Process:
        """Starts a whole command with the common settings."""
        process = Process(self.folder, name, command, {**self.settings, **settings}, is_own=False)
        self.processes.append(process)
        return process

    def free_port(self) -> int:
        """A port that nothing listens on."""
        return free_port()

    def start_standin(self, *options: str) -> None:
        """Starts the stand-in for the Grok API; workers started later use it."""
        self.standin_port = free_port()
        self.start("standin", "standin", "--port", str(self.standin_port), *options)
        wait_until(lambda: self.standin("healthz") is not None, timeout_s=20, what="the stand-in answers")
        self.settings |= {
            "ANALYSER": "grok",
            "GROK_BASE_URL": f"http://127.0.0.1:{self.standin_port}/v1",
            "GROK_MODEL": "standin",
            "XAI_API_KEY": "test-key",
        }

    def standin(self, path: str) -> Any:
        """Returns the stand-in's response to GET, None when there is none."""
        status, body = get(f"http://127.0.0.1:{self.standin_port}/{path}")
        return json.loads(body) if status == 200 else None

    def plan_faults(self, plan: object) -> None:
        """Replaces the stand-in's fault plan."""
        url = f"http://127.0.0.1:{self.standin_port}/control/faults"
        request = urllib.request.Request(url, json.dumps(plan).encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=20):  # noqa: S310  loopback only
            pass

    def start_gateway(self) -> None:
        """Starts the gateway and returns when it is ready; `gateway_url` is its address."""
        port = free_port()
        self.gateway_url = f"http://127.0.0.1:{port}"
        self.start("gateway", "gateway", GATEWAY_PORT=str(port))
        wait_until(lambda: get(f"{self.gateway_url}/readyz")[0] == 200, timeout_s=30, what="the gateway is ready")

    def start_worker(self, name: str, *options: str) -> Process:
        """Starts a worker and returns when it has joined and its table is restored."""
        port = free_port()
        data_dir = str(self.folder / "data" / name)
        worker = self.start(name, "worker", *options, WORKER_METRICS_PORT=str(port), DATA_DIR=data_dir)
        worker.url = f"http://127.0.0.1:{port}"
        wait_until(
            lambda: get(f"{worker.url}/readyz")[0] == 200 or worker.process.poll() is not None,
            timeout_s=60,
            what=f"{name} is ready (see {worker.log})",
        )
        assert worker.process.poll() is None, worker.log.read_text()[-2000:]
        return worker
