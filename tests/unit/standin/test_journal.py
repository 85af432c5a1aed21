"""The journal of calls: one line for each that is over, on the disk at once, in a documented form."""

import hashlib
from pathlib import Path

import orjson
import pytest

from schemas.errors import Fatal
from streams.standin.calls import Call, End
from streams.standin.faults import FaultKind
from streams.standin.journal import Journal

CALL = Call(hashlib.sha256(b"text").digest(), "0a1b2c3d", 100.5, FaultKind.HANG)


def test_a_line_is_there_as_soon_as_the_call_is_over(tmp_path: Path) -> None:
    """And lines of an earlier run stay."""
    for ended_s in (101.0, 102.0):
        Journal(tmp_path / "journal").append(CALL.entry(End.ANSWERED, ended_s))
    first, second = (orjson.loads(line) for line in (tmp_path / "journal").read_text().splitlines())
    assert first == second | {"ended_s": 101.0}
    assert second == {
        "text": hashlib.sha256(b"text").hexdigest(),
        "caller": "0a1b2c3d",
        "began_s": 100.5,
        "ended_s": 102.0,
        "end": "answered",
        "fault": "hang",
    }


def test_a_file_that_cannot_be_written_is_told_before_the_first_call(tmp_path: Path) -> None:
    """Else a whole run would be for nothing."""
    with pytest.raises(Fatal, match="journal"):
        Journal(tmp_path / "missing" / "journal")


@pytest.mark.parametrize(
    ("fault", "status", "end"),
    [
        (None, 200, End.ANSWERED),
        (FaultKind.HANG, 200, End.ANSWERED),
        (FaultKind.SLOW_BODY, 200, End.ANSWERED),
        (FaultKind.BAD_JSON, 200, End.ANSWERED),
        (FaultKind.HTTP_429, 429, End.FAILED),
        (FaultKind.RESET, 200, End.FAILED),
        (FaultKind.RESET_MID_BODY, 200, End.FAILED),
    ],
)
def test_only_a_whole_200_is_an_answer(fault: FaultKind | None, status: int, end: End) -> None:
    """Whatever stands in it."""
    assert Call(b"", "", 0, fault).end_by(status) is end
