"""The workbook gives everything back in order, and does not keep it in memory."""

import random
import sqlite3

import pytest

from schemas.errors import Fatal
from streams.audit.entries import Entry, Kind, conversation_key
from streams.audit.workbook import CACHE_KIB, Workbook


def test_entries_come_back_by_conversation_with_the_row_first() -> None:
    """Then by place, wherever they were added."""
    seed = random.randrange(2**32)
    expected = [
        Entry(conversation_key("t", name), kind, "conversations", 0, offset)
        for name in ("a", "b")
        for offset, kind in ((90, Kind.ROW), (3, Kind.RECORD), (20, Kind.RECORD))
    ]
    shuffled = random.Random(seed).sample(expected, len(expected))
    with Workbook() as workbook:
        for entry in shuffled:
            workbook.add([entry])
        assert workbook.count == len(expected)
        assert list(workbook.in_order()) == expected, f"seed {seed}"


def test_times_and_offsets_are_kept_exactly() -> None:
    """To the largest that Kafka knows."""
    entry = Entry(b"k", Kind.RECORD, "conversations", 2**31 - 1, 2**63 - 1, 1, -1, 2**62)
    with Workbook() as workbook:
        workbook.add([entry])
        assert list(workbook.in_order()) == [entry]


def test_what_the_cache_does_not_hold_is_on_disk() -> None:
    """Pages in memory are bounded by the cache, in which the sort's runs are made too."""
    with Workbook() as workbook:
        database = workbook._database
        assert database.execute("PRAGMA cache_size").fetchone() == (-CACHE_KIB,)
        assert database.execute("PRAGMA temp_store").fetchone() == (1,)  # FILE
        [options] = [value for (value,) in database.execute("PRAGMA compile_options") if value.startswith("TEMP_STORE")]
        assert options in ("TEMP_STORE=0", "TEMP_STORE=1", "TEMP_STORE=2")  # 3 would be: always in memory


def test_a_full_disk_ends_the_audit_with_a_hint() -> None:
    """SQLite's own limit of pages stands for the disk."""
    with Workbook() as workbook:
        workbook._database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(Fatal) as raised:
            workbook.add([Entry(b"k" * 100, Kind.RECORD, "conversations", 0, n) for n in range(1_000)])
    assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
    assert "TMPDIR" in raised.value.hint
