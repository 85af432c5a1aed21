"""The worker's data folder: one worker at a time, for the shards of two would get in each other's way."""

import fcntl
from pathlib import Path
from typing import TextIO

from schemas.errors import Fatal

_HINT = "give each worker a DATA_DIR of its own"


class WorkerFolder:
    """A part of the worker: locked from start to stop; the kernel also unlocks it however the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: TextIO | None = None

    async def start(self) -> None:
        """Raises Fatal when another worker has the folder, or when it cannot be locked."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            lock = (self._path / "worker.lock").open("a")
        except OSError as error:
            raise Fatal(f"{self._path} cannot be written", error.strerror or "", _HINT) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            why = "another worker uses it" if isinstance(error, BlockingIOError) else error.strerror or ""
            raise Fatal(f"{self._path} cannot be locked", why, _HINT) from error
        self._lock = lock

    async def stop(self) -> None:
        """Safe to call again, or without `start`."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
