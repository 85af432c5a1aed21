"""The image's health check, run as the engine runs it: a process of its own, against a real socket."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from streams.dev.local.ports import free_port

SCRIPT = Path(__file__).parents[3] / "infra/docker/healthcheck.py"


@contextmanager
def serving(status: int) -> Iterator[int]:
    """A server that answers `status` and records the requested path; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class looks for this name
            self.send_response(status)
            self.end_headers()
            self.wfile.write(f"asked for {self.path}".encode())

        def log_message(self, format: str, *args: object) -> None:
            """Silent: the test's own output is enough."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def check(port: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    values = {"PATH": os.environ["PATH"], "HEALTH_PORT": str(port), **environment}
    command = [sys.executable, "-I", str(SCRIPT)]
    return subprocess.run(command, env=values, capture_output=True, text=True, timeout=30, check=False)


def test_a_living_process_is_healthy() -> None:
    """200 is healthy, and nothing is printed."""
    with serving(200) as port:
        done = check(port)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("environment", "path"), [({}, "/livez"), ({"HEALTH_PATH": "/readyz"}, "/readyz")])
def test_another_answer_is_printed(environment: dict[str, str], path: str) -> None:
    """Anything but 200 is unhealthy; the engine keeps the line that says why."""
    with serving(503) as port:
        done = check(port, **environment)

    assert done.returncode == 1
    assert done.stderr == f"{path} on port {port}: 503 asked for {path}\n"


def test_a_refused_connection_is_unhealthy() -> None:
    """It is reported in one line, without a traceback."""
    port = free_port()
    done = check(port)

    assert done.returncode == 1
    assert done.stderr.startswith(f"/livez on port {port}: ConnectionRefusedError")
    assert len(done.stderr.splitlines()) == 1
