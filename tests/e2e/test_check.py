"""`grok-insights check`: one line for everything that a worker needs, and an exit code to match."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.dev.local.ports import free_port
from streams.dev.local.postgres import Postgres
from tests.support.processes import PARTITIONS, ROOT, Service

pytestmark = pytest.mark.parametrize("broker", ["tansu"], indirect=True)

NAMES = ["brokers", "topics", "database", "migrations", "provider", "data folder"]
SECRET = "canary-of-a-key"


def check(service: Service, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **service.settings, **settings}
    command = [sys.executable, "-m", "streams", "check", *arguments]
    return subprocess.run(
        command, cwd=service.folder, env=environment, capture_output=True, text=True, timeout=90, check=False
    )


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    document = json.loads(done.stdout)
    assert (done.returncode == 0) == document["ok"] == all(finding["ok"] for finding in document["checks"])
    assert SECRET not in done.stdout + done.stderr
    return {finding["name"]: finding["detail"] for finding in document["checks"] if not finding["ok"]}


def test_all_is_well(service: Service) -> None:
    """There is a line for each check, and nothing is changed or paid for."""
    service.start_standin("--api-key", SECRET, "--model", "standin")
    done = check(service, XAI_API_KEY=SECRET, DATA_DIR="new")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert (done.returncode, [name for name, _, _ in lines]) == (0, NAMES)
    assert {state for _, state, _ in lines} == {"ok"}
    assert f"{PARTITIONS} partitions" in lines[1][2]
    assert SECRET not in done.stdout + done.stderr
    assert service.standin("control/stats")["calls"] == 0
    assert not (service.folder / "new").exists()
    assert findings(check(service, "--json", XAI_API_KEY=SECRET)) == {}


def test_each_wrong_setting_is_named(bare_service: Service, postgres: Postgres) -> None:
    """All are named in one run, each with what to do."""
    service = bare_service
    service.start_standin("--api-key", "another", "--model", "standin")
    (service.folder / "file").write_text("")
    failed = findings(
        check(
            service,
            "--json",
            KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}",
            DATABASE_URL=postgres.url,
            XAI_API_KEY=SECRET,
            DATA_DIR=str(service.folder / "file" / "data"),
        )
    )
    assert list(failed) == ["brokers", "topics", "migrations", "provider", "data folder"]
    assert failed["migrations"] == "migrations are missing: 0001, 0002, 0003; run `grok-insights migrate`"
    assert failed["provider"].startswith("check XAI_API_KEY: ")
    assert failed["provider"].endswith(": Incorrect API key provided.")
    assert "DATA_DIR" in failed["data folder"]


@pytest.mark.parametrize("url", [f"postgresql://user:{SECRET}@127.0.0.1:1/none", f"mysql://user:{SECRET}@host/none"])
def test_a_database_that_cannot_be_used_is_named_without_its_password(service: Service, url: str) -> None:
    """Its migrations are not checked then; without a key no provider is asked."""
    failed = findings(check(service, "--json", DATABASE_URL=url, ANALYSER="local"))
    assert list(failed) == ["database", "migrations"]


def test_missing_settings_are_misuse(service: Service, tmp_path: Path) -> None:
    """As with the worker itself."""
    del service.settings["DATABASE_URL"]
    done = check(service)
    assert (done.returncode, "DATABASE_URL: is required" in done.stderr) == (2, True)
