"""Downloads Kafka's jars, with a small script in Maven's place."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import Fatal
from streams.dev.local.brokers import download_jars, jars_dir
from streams.dev.local.process import ProcessLog

FETCH = """
for argument; do case $argument in -DoutputDirectory=*) folder=${argument#*=};; esac; done
echo run >> "$RUNS"
mkdir "$folder" && touch "$folder/kafka_2.13-1.jar"
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ProcessLog]:
    sink = ProcessLog(tmp_path / "stack.log")
    yield sink
    sink.close()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))


def install_maven(tmp_path: Path, script: str) -> None:
    (tmp_path / "mvn").write_text(f"#!/bin/sh\n{script}")
    (tmp_path / "mvn").chmod(0o755)


def test_jars_are_fetched_once(tmp_path: Path, log: ProcessLog) -> None:
    """A second start finds the first one's jars."""
    install_maven(tmp_path, FETCH)
    assert download_jars(log) == download_jars(log) == jars_dir()
    assert (tmp_path / "runs").read_text() == "run\n"


def test_of_two_at_once_one_fetches(tmp_path: Path, log: ProcessLog) -> None:
    """The other one waits for it."""
    install_maven(tmp_path, FETCH)
    threads = [threading.Thread(target=download_jars, args=(log,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_failed_fetch_leaves_no_half_a_cache(tmp_path: Path, log: ProcessLog) -> None:
    """The error shows Maven's words, and the next start tries again."""
    install_maven(tmp_path, FETCH + "echo '[ERROR] no route to host'; exit 1")
    with pytest.raises(Fatal, match="Maven could not download Apache Kafka") as failed:
        download_jars(log)
    assert "no route to host" in failed.value.why
    assert [entry.name for entry in jars_dir().parent.iterdir()] == [f"{jars_dir().name}.lock"]


def test_a_fetch_can_be_interrupted(tmp_path: Path, log: ProcessLog) -> None:
    """Ctrl-C during a slow download ends it, with nothing left in the cache."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    install_maven(tmp_path, f"kill -s USR1 {os.getpid()}; while :; do sleep 0.01; done")
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            download_jars(log)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not jars_dir().exists()
