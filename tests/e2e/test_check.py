"""`grok-insights check`: one line for everything that a worker needs, and an exit code to match."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.dev.local.ports import free_port
from streams.dev.local.postgres import Postgres
from streams.kafka.admin import topic_configs
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


async def test_a_topic_that_would_lose_records_is_named(bare_service: Service) -> None:
    """An administrator created the changelog of the answers without its configuration."""
    changelog = bare_service.topics.answers_changelog
    admin = AIOKafkaAdminClient(bootstrap_servers=bare_service.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(changelog, PARTITIONS, 1, topic_configs={"cleanup.policy": "delete"})])
    for topic, config in topic_configs(bare_service.topics).items():
        if topic != changelog:
            await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=config)])
    await admin.close()
    failed = findings(await asyncio.to_thread(check, bare_service, "--json", ANALYSER="local"))
    assert list(failed) == ["topics"]
    assert f"{changelog} has cleanup.policy=delete, not compact; " in failed["topics"]


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
