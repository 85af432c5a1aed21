"""`grok-insights up` and the README's own example, run as a person runs them: in a terminal."""

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from streams.dev.demo.run import calls_in
from streams.dev.local.ports import free_port, http_is_ready
from tests.support import processes
from tests.support.processes import ROOT
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

MAX_START_LINES = 9
READY = "grok-insights is ready"
END = "Ctrl-C stops everything."


@contextlib.contextmanager
def up(*options: str, **settings: str) -> Iterator[Terminal]:
    terminal = Terminal(["up", *options], {**os.environ, **settings})
    try:
        terminal.wait_for(END)
        yield terminal
    finally:
        if terminal.process.poll() is None:
            terminal.stop()


def examples(port: str) -> list[str]:
    """The README's commands for a running stack."""
    section = (ROOT / "README.md").read_text().partition("\n## Use it\n")[2]
    block = section.partition("```console\n")[2].partition("```")[0].replace("\\\n", "")
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    return [command.replace("curl ", "curl -sS ").replace(":8080", f":{port}") for command in commands[1:]]


def run(command: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def json_of(command: str) -> Any:
    return json.loads(run(command).stdout)


def audit(shown: str) -> "subprocess.CompletedProcess[str]":
    """Runs the audit as the output says: with the settings that the stack chose, and the program as it was started."""
    [export], [command] = re.findall(r"export .*", shown), re.findall(r"\S+ -m streams audit", shown)
    return run(f"{export} && {command} --json")


@pytest.mark.timeout(300)
def test_the_readmes_example_works_and_a_restart_starts_empty(tmp_path: Path) -> None:
    """With a key for Grok and no model it makes no calls. The output of `up` is enough to look at topics and rows."""
    if shutil.which("curl") is None:
        pytest.skip("the README's commands need curl")
    port = str(free_port())
    options = ("--port", port, "--workers", "1", "--data", str(tmp_path))
    with up(*options, XAI_API_KEY="xai-secret-key") as terminal:
        before, _, shown = terminal.text.partition(READY)
        assert len(before.strip().splitlines()) <= MAX_START_LINES
        assert "XAI_API_KEY is set, GROK_MODEL is not" in shown
        assert "conversations -> insights; dead letters in conversations.dlq" in shown
        post, get, insights, health = examples(port)
        accepted = run(post).stdout
        assert accepted.startswith("HTTP/1.1 202")
        assert "Location: /api/v1/conversations/conv-1" in accepted
        wait_until(lambda: "insight" in json_of(get), timeout_s=30, what="the conversation has an insight")
        assert [item["id"] for item in json_of(insights)["items"]] == ["conv-1"]
        assert json_of(health)["status"] == "ok"
        psql = re.findall(r"\S*psql .*", shown)[0]
        assert "|conv-1|" in run(f"{psql} -tAc 'TABLE insights'").stdout
        audited = audit(shown)
        assert audited.returncode == 0, audited.stdout + audited.stderr
        assert terminal.stop() == 0
        assert "xai-secret-key" not in terminal.text + (tmp_path / "logs" / "stack.log").read_text()

    with up(*options) as terminal:
        assert (found := re.search(r"the rows of earlier starts are now in the schema (\w+)", terminal.text))
        shown = terminal.text.partition(READY)[2]
        assert "the next start is empty" in shown
        audited = audit(shown)
        assert audited.returncode == 0, audited.stdout + audited.stderr
        assert json_of(get)["code"] == "unknown_or_pending"
        psql = re.findall(r"\S*psql .*", shown)[0]
        assert "|conv-1|" in run(f"{psql} -tAc 'TABLE {found[1]}.insights'").stdout
        assert terminal.stop() == 0


@pytest.mark.slow
def test_a_worker_is_added_as_the_output_says(tmp_path: Path) -> None:
    """It gets partitions and asks the stand-in, as the workers of the stack do."""
    gateway_port = free_port()
    with up("--port", str(gateway_port), "--workers", "1", "--data", str(tmp_path), "--grok-standin") as terminal:
        [export] = re.findall(r"export .*", terminal.text)
        [command] = re.findall(r"DATA_DIR=\S+ \S+ -m streams worker", terminal.text)
        port = free_port()
        command = command.replace(".grok-insights-2", f"{tmp_path / 'second'} WORKER_METRICS_PORT={port}")
        argv = ["sh", "-c", f"{export} && exec env {command}"]
        with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL) as worker:
            try:
                wait_until(lambda: http_is_ready(port, "/readyz"), timeout_s=60, what="the second worker is ready")
                for number in range(40):
                    body = json.dumps({"text": f"My parcel {number} has not come for two weeks."})
                    connection = http.client.HTTPConnection("127.0.0.1", gateway_port, timeout=10)
                    headers = {"content-type": "application/json"}
                    connection.request("POST", "/api/v1/conversations", body, headers)
                    assert connection.getresponse().status == 202
                    connection.close()
                metrics = f"http://127.0.0.1:{port}/metrics"
                wait_until(
                    lambda: calls_in(processes.get(metrics)[1].decode()) > 0, timeout_s=30, what="it calls the stand-in"
                )
            finally:
                worker.terminate()


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_kafka_keeps_its_rows_and_topics_whatever_runs_on_tansu(tmp_path: Path) -> None:
    """Each broker has a database of its own, so the rows in it have their records. Topics may get more partitions."""
    port = str(free_port())
    options = ("--port", port, "--workers", "1", "--data", str(tmp_path))
    post, get, *_ = examples(port)

    def analyse_and_audit(shown: str) -> None:
        run(post)
        wait_until(lambda: "insight" in json_of(get), timeout_s=60, what="the conversation has an insight")
        audited = audit(shown)
        assert audited.returncode == 0, audited.stdout + audited.stderr

    with up(*options) as terminal:
        analyse_and_audit(terminal.text)
    with up(*options, "--broker", "kafka") as terminal:
        assert json_of(get)["code"] == "unknown_or_pending"
        analyse_and_audit(terminal.text)
        [export] = re.findall(r"export .*", terminal.text)
        grown = run(f"{export} TOPIC_PARTITIONS=12 && {sys.executable} -m streams topics --grow")
        assert grown.returncode == 0, grown.stderr
    with up(*options):
        assert json_of(get)["code"] == "unknown_or_pending"
    with up(*options, "--broker", "kafka") as terminal:
        assert json_of(get)["insight"]
        audited = audit(terminal.text)
        assert audited.returncode == 0, audited.stdout + audited.stderr


def test_a_broker_to_start_contradicts_one_that_is_set(tmp_path: Path) -> None:
    """Without --broker the one that is set is used, and the first line says so. Nothing is started for one in vain."""
    servers = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": servers}

    def start(*options: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-m", "streams", "up", "--port", "0", "--data", str(tmp_path / "data"), *options]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=90, check=False)

    refused = start("--broker", "kafka")
    assert refused.returncode == 2
    assert f"--broker kafka contradicts KAFKA_BOOTSTRAP_SERVERS\n  why: it is set to {servers}" in refused.stderr
    assert "unset KAFKA_BOOTSTRAP_SERVERS" in refused.stderr
    assert not (tmp_path / "data").exists()
    unreachable = start()
    assert unreachable.returncode == 1
    assert unreachable.stderr.startswith(f"no broker is started: KAFKA_BOOTSTRAP_SERVERS is set to {servers}\n")
    assert re.findall("stopping .*", unreachable.stderr) == ["stopping postgres"]


@pytest.mark.slow
def test_a_worker_that_ends_stops_everything(tmp_path: Path) -> None:
    """The last thing that is shown is which process ended, how, its last lines, and where the whole log is."""
    with up("--port", "0", "--workers", "1", "--data", str(tmp_path)) as terminal:
        stack = psutil.Process(terminal.process.pid)
        [worker] = [child for child in stack.children() if child.cmdline()[-1] == "worker"]
        worker.kill()
        assert terminal.process.wait(60) == 1
        wait_until(lambda: "stack.log" in terminal.text.rpartition("error: ")[2])
        first, why, *lines, hint = terminal.text.rpartition("error: ")[2].strip().splitlines()
        assert (first, why) == ("worker-1 has ended", "  why: signal 9; its last lines:")
        assert json.loads(lines[-1])["event"]
        assert hint == f" hint: the whole log is {tmp_path / 'logs' / 'stack.log'}"


@pytest.mark.slow
def test_a_password_of_ones_own_database_is_not_shown(tmp_path: Path, database_url: str) -> None:
    """The user who set it knows it; a screen may be shared."""
    url = f"{database_url}{'&' if '?' in database_url else '?'}application_name=canary"
    options = ("--port", "0", "--workers", "1", "--data", str(tmp_path))
    with up(*options, DATABASE_URL=url) as terminal:
        assert "database  as set in DATABASE_URL" in terminal.text
        assert "Rows of earlier starts stay in your database" in terminal.text
        assert "canary" not in terminal.text
