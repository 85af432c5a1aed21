"""The folder of the local stack: one stack at a time, writable, with room on the disk."""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import TextIO

from schemas.errors import Fatal

# An empty Postgres takes 50 MB, its write-ahead log may grow to 256 MB, tables and Kafka's log come on top.
MIN_FREE_BYTES = 512 * 1024 * 1024
_HINT = "choose another folder with --data or DATA_DIR"


class DataFolder:
    """Locked from `acquire` to `release`; the kernel also releases it however the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: TextIO | None = None

    def acquire(self) -> None:
        """Raises Fatal when the folder is another stack's, cannot be written to or lies on a full disk."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.path / "stack.lock").open("a+")
        except OSError as error:
            raise Fatal(
                f"the data folder {self.path} cannot be written", error.strerror or str(error), _HINT
            ) from error
        try:
            self._take(lock)
            self._check_room()
        except BaseException:
            lock.close()
            raise
        self._lock = lock

    def release(self) -> None:
        """Safe to call again, or without `acquire`."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take(self, lock: TextIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            why = f"process {lock.read().strip() or 'unknown'} runs a local stack in it"
            raise Fatal(f"the data folder {self.path} is in use", why, f"stop that process or {_HINT}") from error
        # Only for the message above; a full disk is reported by the next check.
        with contextlib.suppress(OSError):
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.path).free
        if free < MIN_FREE_BYTES:
            why = f"{free // 2**20} MiB are free, the local stack needs {MIN_FREE_BYTES // 2**20} MiB"
            raise Fatal(f"the disk of {self.path} is full", why, f"make room or {_HINT}")
