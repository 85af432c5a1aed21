"""The external sort returns everything in order, and does not keep it in memory."""

import random
import sqlite3
from contextlib import closing

import pytest

from schemas.errors import Fatal
from streams.operations.audit.observations import SORT_CACHE_KIB, ExternalSort, Kind, Observation, conversation_key


def test_observations_come_back_by_conversation_with_the_row_first() -> None:
    """Then by origin, wherever they were added."""
    seed = random.randrange(2**32)
    expected = [
        Observation(conversation_key("t", name), kind, "conversations", 0, offset)
        for name in ("a", "b")
        for offset, kind in ((90, Kind.ROW), (3, Kind.RECORD), (20, Kind.RECORD))
    ]
    with closing(ExternalSort()) as external_sort:
        for observation in random.Random(seed).sample(expected, len(expected)):
            external_sort.add([observation])
        assert external_sort.count == len(expected)
        assert list(external_sort.sorted()) == expected, f"seed {seed}"


def test_times_and_offsets_are_exact() -> None:
    """Up to the largest that Kafka knows."""
    observation = Observation(b"k", Kind.RECORD, "conversations", 2**31 - 1, 2**63 - 1, 1, -1, 2**62)
    with closing(ExternalSort()) as external_sort:
        external_sort.add([observation])
        assert list(external_sort.sorted()) == [observation]


def test_what_does_not_fit_the_cache_is_on_disk() -> None:
    """The cache bounds both the pages in memory and the sorted runs."""
    with closing(ExternalSort()) as external_sort:
        database = external_sort._database
        assert database.execute("PRAGMA cache_size").fetchone() == (-SORT_CACHE_KIB,)
        assert database.execute("PRAGMA temp_store").fetchone() == (1,)  # FILE
        [options] = [value for (value,) in database.execute("PRAGMA compile_options") if value.startswith("TEMP_STORE")]
        assert options in ("TEMP_STORE=0", "TEMP_STORE=1", "TEMP_STORE=2")  # 3 would be: always in memory


def test_a_full_disk_ends_the_audit_with_a_hint() -> None:
    """SQLite's own limit of pages plays the disk."""
    with closing(ExternalSort()) as external_sort:
        external_sort._database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(Fatal) as raised:
            external_sort.add([Observation(b"k" * 100, Kind.RECORD, "conversations", 0, n) for n in range(1_000)])
    assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
    assert "TMPDIR" in raised.value.hint
