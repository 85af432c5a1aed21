"""Lets consumers read records whose header names are not UTF-8: some clients write any bytes there.

aiokafka 0.14 raises UnicodeDecodeError at such a record and never gets past it, so that one record would end every
reader of its partition for good. Here the bytes that are not UTF-8 are escaped (`\\xff`), and the record is read; in
copies of it, such as a dead letter, the name stays escaped.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


def accept_any_header_name() -> None:
    """For every consumer of this process; may be called any number of times."""
    fetcher.MemoryRecords = _Records


class _Records(_MemoryRecordsPy):  # type: ignore[misc]
    """Iterates over batches, as aiokafka's does."""

    def next_batch(self) -> Any:
        data = self._next_slice
        batch = super().next_batch()
        return None if data is None else _Batch(batch, data)


class _Batch:
    """aiokafka's batch, read by its slower Python twin where a header name asks for it."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        count = 0
        try:
            for record in self._batch:
                yield record
                count += 1
        except (UnicodeDecodeError, CorruptRecordException):  # the second is what aiokafka's Python version raises
            yield from islice(_LenientBatch(self._data), count, None)

    def __next__(self) -> Any:
        return next(self._batch)


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _LenientBytes(self._buffer)


class _LenientBytes(bytearray):
    """What the Python twin slices header names from; it decodes nothing else."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return _LenientBytes(part) if isinstance(index, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
