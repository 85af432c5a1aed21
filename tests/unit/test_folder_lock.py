"""The lock on a data folder: one holder, who is named; errors that say what to change."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import Fatal
from streams.folder_lock import locked_folder

HINT = "choose another folder"
HOLD = """
import sys, time
from pathlib import Path
from streams.folder_lock import locked_folder
with locked_folder(Path(sys.argv[1]), "worker", ""):
    print("locked", flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock."""
    argv = [sys.executable, "-c", HOLD, str(tmp_path / "data")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_the_process_that_holds_it_is_named_until_it_is_killed(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    """The kernel releases the lock: no file has to be removed after a crash."""
    with pytest.raises(Fatal) as refused, locked_folder(tmp_path / "data", "worker", HINT):
        pass
    assert refused.value.what == f"the data folder {tmp_path / 'data'} is in use"
    assert refused.value.why.startswith(f"process {holder.pid} on ")
    assert refused.value.hint == f"stop that process or {HINT}"
    holder.kill()
    holder.wait()
    with locked_folder(tmp_path / "data", "worker", HINT):
        assert f"process {os.getpid()} on " in (tmp_path / "data" / "worker.lock").read_text()


def test_another_program_may_use_the_same_folder(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    """A worker beside a stack, whose own workers have folders of their own."""
    with locked_folder(tmp_path / "data", "stack", HINT):
        assert holder.poll() is None


def test_it_is_free_after_the_block(tmp_path: Path) -> None:
    """Also when the block failed."""
    with pytest.raises(RuntimeError), locked_folder(tmp_path, "worker", HINT):
        raise RuntimeError
    with locked_folder(tmp_path, "worker", HINT), pytest.raises(Fatal), locked_folder(tmp_path, "worker", HINT):
        pass


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    """It has the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(Fatal) as refused, locked_folder(tmp_path / "file" / "data", "worker", HINT):
        pass
    assert refused.value.what == f"the data folder {tmp_path / 'file' / 'data'} cannot be used"
    assert (refused.value.why, refused.value.hint) == ("Not a directory", HINT)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Network file systems may have none; two workers would then write to the same shards."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(Fatal) as refused, locked_folder(tmp_path, "worker", HINT):
        pass
    assert refused.value.why == "its file system has no locks"
