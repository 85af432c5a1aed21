"""The worker's data folder: one worker at a time, for the shards of two would get in each other's way."""

from contextlib import ExitStack
from pathlib import Path

from streams.folder_lock import locked_folder


class WorkerFolder:
    """A part of the worker: locked from start to stop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = ExitStack()

    async def start(self) -> None:
        """Raises Fatal when another worker has the folder, or when it cannot be locked."""
        self._lock.enter_context(locked_folder(self._path, "worker", "give each worker a DATA_DIR of its own"))

    async def stop(self) -> None:
        """Safe to call again, or without `start`."""
        self._lock.close()
