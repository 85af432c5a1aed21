"""Fixtures for the tests of the local stack: a data folder as a person would have it, and the log."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.dev.local.process import ProcessLog


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder as `mktemp -d` makes it: no other user may enter."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder / "data"


@pytest.fixture
def log(data_dir: Path) -> Iterator[ProcessLog]:
    process_log = ProcessLog(data_dir / "logs" / "stack.log")
    yield process_log
    process_log.close()
