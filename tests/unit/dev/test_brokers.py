"""Tansu loses its topics, so the data that workers derived from them must go, and nothing else."""

from pathlib import Path

from streams.dev.local.brokers import Tansu
from streams.dev.local.process import ProcessLog


def test_only_the_workers_data_of_lost_topics_are_removed(tmp_path: Path) -> None:
    """Other programs may use the folder: its name is a common word."""
    workers, foreign = tmp_path / "tansu" / "worker-1", tmp_path / "tansu" / "README.md"
    workers.mkdir(parents=True)
    (workers / "table").touch()
    foreign.touch()
    tansu = Tansu(tmp_path, ProcessLog(tmp_path / "stack.log"))
    tansu.prepare()
    assert (workers.exists(), foreign.exists()) == (False, True)
