"""A lock on a data folder: one process at a time. The kernel releases it however the process ends."""

import contextlib
import os
import socket
from collections.abc import Iterator
from errno import ENOLCK, ENOSYS, ENOTSUP
from pathlib import Path

from filelock import FileLock, Timeout

from schemas.errors import Fatal

_NO_LOCKS = (ENOLCK, ENOSYS, ENOTSUP)


@contextlib.contextmanager
def locked_folder(folder: Path, program: str, hint: str) -> Iterator[None]:
    """Makes `folder` and locks it against other processes of the same `program`, as long as the block runs.

    Raises Fatal, with `hint`, when another process has it, when it cannot be written, and on a file system without
    locks.
    """
    path = folder / f"{program}.lock"
    # On a file system without locks filelock would only leave a marker, which a killed process does not remove.
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False, on_acquired=_write_holder)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
    except Timeout as error:
        why = f"{_read_holder(path)} runs a {program} in it"
        raise Fatal(f"the data folder {folder} is in use", why, f"stop that process or {hint}") from error
    except OSError as error:
        why = "its file system has no locks" if error.errno in _NO_LOCKS else error.strerror or str(error)
        raise Fatal(f"the data folder {folder} cannot be used", why, hint) from error
    try:
        yield
    finally:
        lock.release()


def _write_holder(descriptor: int) -> None:
    """Only for the message above. The host is a container's own number, where each process has the number 1."""
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _read_holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip() or "another process"
    return "another process"
