"""A record whose header name is not UTF-8 is read like any other."""

from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from streams.kafka.header_names import _Records
from tests.support.raw_headers import RawName, raw_batch

NAMES = ["plain", "größe", RawName(b"\xff\xfe size"), ""]
READ = ["plain", "größe", r"\xff\xfe size", ""]
GZIP = 1


def batch_of(names: list[str], compression_type: int = 0) -> bytes:
    """One record, with a header for each name."""
    batch = raw_batch(compression_type)
    for offset in range(3):
        headers = [(name, b"v") for name in names if offset == 1]
        batch.append(timestamp=1_000 + offset, key=b"key", value=b"value %d" % offset, headers=headers)
    return bytes(batch._build())


def records_of(data: bytes, reader: Any) -> list[tuple[Any, ...]]:
    records, found = reader(data), []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        found += [(r.offset, r.timestamp, r.key, r.value, [name for name, _ in r.headers]) for r in batch]
    return found


def test_aiokafka_reads_no_such_record() -> None:
    """The defect that header_names.py works around; once this fails, remove the work-around."""
    with pytest.raises((UnicodeDecodeError, CorruptRecordException)):
        records_of(batch_of(NAMES), MemoryRecords)


def test_what_is_corrupt_stays_so() -> None:
    """After the records in front of it: one of them may have a header name of its own."""
    data = bytearray(batch_of(NAMES))
    data[-3:] = b"\xff\xff\xff"  # the last record's value and count of headers
    records = iter(_Records(bytes(data)).next_batch())
    assert [next(records).offset, next(records).offset] == [0, 1]
    with pytest.raises(CorruptRecordException):
        next(records)


def test_a_batch_gives_its_first_record() -> None:
    """As aiokafka asks for it with control batches."""
    assert next(iter(_Records(batch_of([])).next_batch())).offset == 0
    batch = _Records(batch_of([])).next_batch()
    iter(batch._batch)
    assert next(batch).offset == 0


@pytest.mark.parametrize("compression_type", [0, GZIP])
def test_every_record_is_read(compression_type: int) -> None:
    """Those before and after it too, and those of the next batch."""
    data = batch_of(NAMES, compression_type) + batch_of([])
    of_first = [(n, 1_000 + n, b"key", b"value %d" % n, READ if n == 1 else []) for n in range(3)]
    of_second = [(n, 1_000 + n, b"key", b"value %d" % n, []) for n in range(3)]
    assert records_of(data, _Records) == of_first + of_second


@pytest.mark.parametrize("compression_type", [0, GZIP])
def test_other_records_are_read_as_aiokafka_reads_them(compression_type: int) -> None:
    data = batch_of(["plain", "größe"], compression_type) * 2
    assert records_of(data, _Records) == records_of(data, MemoryRecords)
    cut = data[:-10]  # a fetch ends anywhere
    assert records_of(cut, _Records) == records_of(cut, MemoryRecords)
