"""Entries on disk, given back conversation by conversation: an external sort, so that memory stays bounded.

SQLite's temporary database does it: it spills what its cache does not hold, sorts in runs on disk, and its files have
no name any more once they are open, so nothing is left behind however the process ends.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Self

from schemas.errors import Fatal
from streams.audit.entries import Entry

#: Bounds both the pages kept in memory and the size of a sorted run.
CACHE_KIB = 16 * 1024
_FETCH_ROWS = 1_000

_TABLE = """\
CREATE TABLE entries (
    key BLOB, kind INTEGER, topic TEXT, partition INTEGER, offset INTEGER, state INTEGER, occurred_us INTEGER,
    made_us INTEGER
)"""
#: The row first, since every other finding is judged by it; then place by place.
_IN_ORDER = "SELECT * FROM entries ORDER BY key, kind <> 0, topic, partition, offset"


class Workbook(AbstractContextManager["Workbook"]):
    """Every method raises Fatal when the temporary folder has no room."""

    def __init__(self) -> None:
        # The empty name: a private database on disk, in TMPDIR or else /var/tmp.
        self._database = sqlite3.connect("", isolation_level=None)
        for setting in ("temp_store = FILE", f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(_TABLE)
        self.count = 0

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def add(self, entries: Iterable[Entry]) -> None:
        """Some more, in any order."""
        batch = list(entries)
        with _room():
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", batch)
            self._database.execute("COMMIT")
        self.count += len(batch)

    def in_order(self) -> Iterator[Entry]:
        """All of them, those of one conversation in a row: its row first, then the rest by place."""
        with _room():
            cursor = self._database.execute(_IN_ORDER)
            while rows := cursor.fetchmany(_FETCH_ROWS):
                yield from map(Entry._make, rows)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        hint = "set TMPDIR to a folder with more room: about 1 GB for a million records"
        raise Fatal("the audit's temporary file cannot be used", str(error), hint) from error
