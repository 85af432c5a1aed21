"""One worker a data folder."""

import os
from pathlib import Path

import pytest

from schemas.errors import Fatal
from streams.worker.data_folder import WorkerFolder


async def test_a_second_worker_is_refused_until_the_first_one_ends(tmp_path: Path) -> None:
    """Their shards would lock each other out, at a rebalance hours later."""
    first, second = WorkerFolder(tmp_path / "data"), WorkerFolder(tmp_path / "data")
    await first.start()
    with pytest.raises(Fatal) as refused:
        await second.start()
    assert f"process {os.getpid()} on " in refused.value.why
    assert "give each worker a DATA_DIR of its own" in refused.value.hint
    await first.stop()
    await second.start()
    await second.stop()


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """Instead of being waited for."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Fatal):
        await WorkerFolder(tmp_path / "file" / "data").start()
