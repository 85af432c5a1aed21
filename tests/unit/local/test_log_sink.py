"""The one place for the logs of the local stack."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.local.log_sink import MAX_LINE_CHARS, TAIL_LINES, LogSink


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "stack.log"


@pytest.fixture
def sink(path: Path) -> Iterator[LogSink]:
    sink = LogSink(path, max_bytes=1000)
    yield sink
    sink.close()


def test_lines_carry_the_childs_name(path: Path, sink: LogSink) -> None:
    """Lines of all children are in one file, each with its origin."""
    sink.line("worker-1", "ready")
    sink.line("kafka", "started")
    assert path.read_text() == "worker-1 | ready\nkafka | started\n"


def test_echo_shows_the_same_lines(path: Path) -> None:
    """A terminal sees what the file holds."""
    terminal = io.StringIO()
    sink = LogSink(path, echo=terminal)
    sink.line("tansu", "ready")
    sink.close()
    assert terminal.getvalue() == path.read_text() == "tansu | ready\n"


def test_tail_keeps_the_last_lines_of_each_child(sink: LogSink) -> None:
    """An error message can show the last lines of the one child that failed."""
    for number in range(TAIL_LINES + 5):
        sink.line("worker-1", str(number))
        sink.line("worker-2", "noise")
    assert sink.tail("worker-1", 2) == [str(TAIL_LINES + 3), str(TAIL_LINES + 4)]
    assert len(sink.tail("worker-1")) == TAIL_LINES
    assert sink.tail("unknown") == []


def test_forgotten_lines_are_not_shown_for_a_later_run(sink: LogSink) -> None:
    """What an earlier process said is no explanation for the next one."""
    sink.line("worker-1", "old")
    sink.forget("worker-1")
    assert sink.tail("worker-1") == []


def test_the_file_is_opened_at_the_first_line(path: Path) -> None:
    """A stack that is refused its folder leaves the log of the running one alone; the last run's log is kept."""
    path.parent.mkdir()
    path.write_text("of the run before\n")
    sink = LogSink(path)
    assert path.read_text() == "of the run before\n"
    sink.line("tansu", "ready")
    sink.close()
    assert path.with_suffix(".log.1").read_text() == "of the run before\n"


def test_the_log_does_not_grow_for_ever(path: Path, sink: LogSink) -> None:
    """At most two files of about the limit are kept."""
    for _ in range(1000):
        sink.line("worker-1", "x" * 50)
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 2500
    assert len(list(path.parent.iterdir())) == 2


def test_an_endless_line_is_cut(sink: LogSink) -> None:
    """One line cannot fill the memory."""
    sink.line("worker-1", "x" * (2 * MAX_LINE_CHARS))
    assert len(sink.tail("worker-1")[0]) == MAX_LINE_CHARS


def test_control_characters_are_left_out(sink: LogSink) -> None:
    """What a child prints can neither colour nor rewrite the terminal."""
    sink.line("kafka-jars", "\x1b[31mfailed\x1b[0m\rok\x07\tdone")
    assert sink.tail("kafka-jars") == ["failedok\tdone"]


def test_logging_never_raises(tmp_path: Path) -> None:
    """A log that cannot be written and a closed terminal do not stop the child that is being logged."""
    (tmp_path / "logs").write_text("a file where the folder should be")
    terminal = io.StringIO()
    terminal.close()
    sink = LogSink(tmp_path / "logs" / "stack.log", echo=terminal)
    sink.line("worker-1", "still here")
    assert sink.tail("worker-1") == ["still here"]
