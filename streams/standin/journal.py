"""The journal of calls: a file with one JSON line for each call that is over, for whoever judges a run afterwards."""

from pathlib import Path

import msgspec

from schemas.errors import Fatal
from streams.standin.calls import Entry


class Journal:
    """Appends to `path`. Raises Fatal when that file cannot be written, before the first call."""

    def __init__(self, path: Path) -> None:
        # A call may end while the server shuts down, after everything that could be closed was: no file is kept open.
        self._path = path
        try:
            path.open("ab").close()
        except OSError as error:
            why = f"{path}: {error.strerror}"
            raise Fatal("the journal cannot be written", why, "choose another file with --journal") from error

    def append(self, entry: Entry) -> None:
        """The line is with the operating system when this returns: it outlives a kill of this process."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
