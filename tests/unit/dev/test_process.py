"""Child processes and their log: output, end, and that nothing of them is left behind."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from streams.dev.local import process
from streams.dev.local.process import MAX_LINE_CHARS, TAIL_LINES, Child, ProcessLog

ENV = {"PATH": os.defpath}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ProcessLog]:
    log = ProcessLog(tmp_path / "stack.log")
    yield log
    log.close()


def run_shell(script: str, log: ProcessLog, stdin: bytes = b"") -> Child:
    child = Child("sh", ["/bin/sh", "-c", script], ENV, log)
    child.run()
    child.send(stdin)
    return child


def wait_until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Returns False for a zombie, which has ended but was not reaped yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def exit_code_of(child: Child) -> int | None:
    """Waits for the end of the child, and of its log."""
    wait_until(lambda: not child.is_running)
    child.terminate(0)
    return child.exit_code


def last_pid(log: ProcessLog) -> int:
    """Returns the number that the child printed as its last line."""
    wait_until(lambda: bool(log.tail("sh")))
    return int(log.tail("sh")[-1])


def test_both_outputs_are_logged_and_the_exit_code_known(log: ProcessLog) -> None:
    """Standard output and error go to the one log; the exit code is the program's own."""
    child = run_shell("echo out; echo err >&2; exit 3", log)
    assert exit_code_of(child) == 3
    assert log.tail("sh") == ["out", "err"]
    assert child.exit_code == 3


def test_the_program_runs_at_once_and_gets_its_input_later(log: ProcessLog) -> None:
    """It reads exactly the bytes that are sent, and then the end."""
    child = Child("sh", ["/bin/sh", "-c", "echo up; cat"], ENV, log)
    child.run()
    wait_until(lambda: log.tail("sh") == ["up"])
    child.send(b"one\ntwo\n")
    assert exit_code_of(child) == 0
    assert log.tail("sh") == ["up", "one", "two"]


def test_a_program_that_waits_for_input_can_be_stopped(log: ProcessLog) -> None:
    """A stack that fails to start stops what is still loading."""
    child = Child("sh", ["/bin/sh", "-c", "read -r _; echo never"], ENV, log)
    child.run()
    child.terminate(10)
    assert (child.is_running, log.tail("sh")) == (False, [])


def test_invalid_utf8_is_logged(log: ProcessLog) -> None:
    """Invalid UTF-8 and a missing newline at the end neither stop the log nor get lost."""
    child = run_shell(r"printf 'caf\351'", log)
    assert exit_code_of(child) == 0
    assert log.tail("sh") == ["caf\N{REPLACEMENT CHARACTER}"]


def test_a_missing_program_says_so(log: ProcessLog) -> None:
    """The reason is in the log, from which error messages take their last lines."""
    child = Child("ghost", ["/no/such/program"], ENV, log)
    child.run()
    child.send()
    assert exit_code_of(child) in {126, 127}
    assert "/no/such/program" in log.tail("ghost")[0]


def test_terminate_lets_the_program_finish(log: ProcessLog) -> None:
    """A stop signal comes first: a program that handles it ends in its own way."""
    child = run_shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done", log)
    wait_until(lambda: log.tail("sh") == ["up"])
    child.terminate(10)
    assert (child.exit_code, log.tail("sh")) == (0, ["up", "bye"])


def test_a_stop_is_asked_for_only_once(log: ProcessLog) -> None:
    """A second signal means "at once" to many programs, so none is sent."""
    child = run_shell("trap 'echo asked; asked=1' TERM; echo up; until [ $asked ]; do sleep 0.01; done; sleep 0.2", log)
    wait_until(lambda: log.tail("sh") == ["up"])
    child.ask_to_stop()
    wait_until(lambda: log.tail("sh") == ["up", "asked"])
    child.ask_to_stop()
    child.terminate(10)
    assert log.tail("sh") == ["up", "asked"]


def test_a_program_that_will_not_stop_is_killed_with_its_group(log: ProcessLog) -> None:
    """After the grace period neither the program nor what it started is left."""
    child = run_shell("trap '' TERM; sleep 1000 & echo $!; wait", log)
    grandchild = last_pid(log)
    child.terminate(0.1)
    assert child.exit_code == -signal.SIGKILL
    wait_until(lambda: not is_alive(grandchild))


def test_the_leftovers_of_a_program_that_ended_are_killed(log: ProcessLog) -> None:
    """Grandchildren do not outlive the end of their parent."""
    child = run_shell("sleep 1000 >/dev/null 2>&1 & echo $!", log)
    assert exit_code_of(child) == 0
    grandchild = int(log.tail("sh")[0])
    wait_until(lambda: not is_alive(grandchild))


PARENT = """
import functools, sys, threading
from pathlib import Path
from streams.dev.local.process import Child
from streams.dev.local.process import ProcessLog

log = ProcessLog(Path(sys.argv[1]) / "stack.log", show=functools.partial(print, flush=True))
def run():
    script = "trap '' TERM HUP; sleep 1000 & echo $! $$; wait"
    child = Child("sh", ["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}, log)
    child.run()
    child.send()
starter = threading.Thread(target=run)
starter.start(); starter.join()
threading.Event().wait()
"""


def test_nothing_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    """SIGKILL for us also ends our children and theirs, even when the thread that started them has ended."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().removeprefix("sh | ").split()]
        assert [is_alive(pid) for pid in pids] == [True, True]
        parent.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "stack.log"


@pytest.fixture
def own_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessLog]:
    monkeypatch.setattr(process, "MAX_LOG_BYTES", 1000)
    log = ProcessLog(path)
    yield log
    log.close()


def test_lines_carry_the_childs_name(path: Path, own_log: ProcessLog) -> None:
    """Lines of all children are in one file, each with its origin."""
    own_log.line("worker-1", "ready")
    own_log.line("kafka", "started")
    assert path.read_text() == "worker-1 | ready\nkafka | started\n"


def test_a_terminal_shows_the_same_lines(path: Path) -> None:
    """A terminal sees what the file holds."""
    shown: list[str] = []
    own_log = ProcessLog(path, show=shown.append)
    own_log.line("tansu", "ready")
    own_log.close()
    assert (shown, path.read_text()) == (["tansu | ready"], "tansu | ready\n")


def test_tail_keeps_the_last_lines_of_each_child(own_log: ProcessLog) -> None:
    """An error message can show the last lines of the one child that failed."""
    for number in range(TAIL_LINES + 5):
        own_log.line("worker-1", str(number))
        own_log.line("worker-2", "noise")
    assert own_log.tail("worker-1", 2) == [str(TAIL_LINES + 3), str(TAIL_LINES + 4)]
    assert len(own_log.tail("worker-1")) == TAIL_LINES
    assert own_log.tail("unknown") == []


def test_lines_of_an_earlier_run_can_be_removed(own_log: ProcessLog) -> None:
    """They do not explain the failure of the next process."""
    own_log.line("worker-1", "old")
    own_log.clear_tail("worker-1")
    assert own_log.tail("worker-1") == []


def test_the_file_is_opened_at_the_first_line(path: Path) -> None:
    """A stack that is refused its folder leaves the log of the running one alone; the last run's log is kept."""
    path.parent.mkdir()
    path.write_text("of the run before\n")
    own_log = ProcessLog(path)
    assert path.read_text() == "of the run before\n"
    own_log.line("tansu", "ready")
    own_log.close()
    assert path.with_suffix(".log.1").read_text() == "of the run before\n"


def test_the_log_does_not_grow_without_bound(path: Path, own_log: ProcessLog) -> None:
    """At most two files of about the limit are kept."""
    for _ in range(1000):
        own_log.line("worker-1", "x" * 50)
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 2500
    assert len(list(path.parent.iterdir())) == 2


def test_an_endless_line_is_cut(own_log: ProcessLog) -> None:
    """One line cannot fill the memory."""
    own_log.line("worker-1", "x" * (2 * MAX_LINE_CHARS))
    assert len(own_log.tail("worker-1")[0]) == MAX_LINE_CHARS


def test_control_characters_are_left_out(own_log: ProcessLog) -> None:
    """What a child prints can neither colour nor rewrite the terminal."""
    own_log.line("kafka-jars", "\x1b[31mfailed\x1b[0m\rok\x07\tdone")
    assert own_log.tail("kafka-jars") == ["failedok\tdone"]


def test_logging_never_raises(tmp_path: Path) -> None:
    """A log that cannot be written and a closed terminal do not stop the child that is being logged."""
    (tmp_path / "logs").write_text("a file where the folder should be")
    terminal = io.StringIO()
    terminal.close()
    own_log = ProcessLog(tmp_path / "logs" / "stack.log", show=terminal.write)
    own_log.line("worker-1", "still here")
    assert own_log.tail("worker-1") == ["still here"]
