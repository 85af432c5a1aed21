"""Child processes: their output, their end, and that nothing of them stays."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.local.child import Child
from streams.local.log_sink import LogSink

ENV = {"PATH": os.defpath}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogSink]:
    sink = LogSink(tmp_path / "stack.log")
    yield sink
    sink.close()


def shell(script: str, log: LogSink, stdin: bytes = b"") -> Child:
    return Child("sh", ["/bin/sh", "-c", script], ENV, log, stdin=stdin)


def wait_until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Zombies do not count: who reaps an orphan is the machine's business."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def last_pid(child: Child, log: LogSink) -> int:
    """The number that the child printed as its last line."""
    wait_until(lambda: bool(log.tail(child.name)))
    return int(log.tail(child.name)[-1])


def test_both_outputs_are_logged_and_the_exit_code_known(log: LogSink) -> None:
    """Standard output and error go to the one log; the exit code is the program's own."""
    child = shell("echo out; echo err >&2; exit 3", log)
    child.start()
    assert child.wait(10) == 3
    child.terminate(0)
    assert log.tail("sh") == ["out", "err"]
    assert child.exit_code == 3


def test_input_reaches_the_program_and_ends(log: LogSink) -> None:
    """A program that reads gets exactly the given bytes."""
    child = shell("cat", log, stdin=b"one\ntwo\n")
    child.start()
    assert child.wait(10) == 0
    child.terminate(0)
    assert log.tail("sh") == ["one", "two"]


def test_bytes_that_are_no_text_are_logged_all_the_same(log: LogSink) -> None:
    """Broken bytes and a missing last line end neither stop the log nor get lost."""
    child = shell(r"printf 'caf\351'", log)
    child.start()
    assert child.wait(10) == 0
    child.terminate(0)
    assert log.tail("sh") == ["caf\N{REPLACEMENT CHARACTER}"]


def test_a_missing_program_says_so(log: LogSink) -> None:
    """The reason is where the error message takes its last lines from."""
    child = Child("ghost", ["/no/such/program"], ENV, log)
    child.start()
    assert child.wait(10) in {126, 127}
    child.terminate(0)
    assert "/no/such/program" in log.tail("ghost")[0]


def test_terminate_lets_the_program_finish(log: LogSink) -> None:
    """A stop signal comes first: a program that handles it ends in its own way."""
    child = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done", log)
    child.start()
    wait_until(lambda: log.tail("sh") == ["up"])
    child.terminate(10)
    assert (child.exit_code, log.tail("sh")) == (0, ["up", "bye"])


def test_a_stop_is_asked_for_only_once(log: LogSink) -> None:
    """A second signal means "at once" to many programs, so none is sent."""
    child = shell("trap 'echo asked; asked=1' TERM; echo up; until [ $asked ]; do sleep 0.01; done; sleep 0.2", log)
    child.start()
    wait_until(lambda: log.tail("sh") == ["up"])
    child.ask_to_stop()
    wait_until(lambda: log.tail("sh") == ["up", "asked"])
    child.ask_to_stop()
    child.terminate(10)
    assert log.tail("sh") == ["up", "asked"]


def test_a_program_that_will_not_stop_is_killed_with_its_group(log: LogSink) -> None:
    """After the grace period neither the program nor what it started is left."""
    child = shell("trap '' TERM; sleep 1000 & echo $!; wait", log)
    child.start()
    grandchild = last_pid(child, log)
    child.terminate(0.1)
    assert child.exit_code == -signal.SIGKILL
    wait_until(lambda: not is_alive(grandchild))


def test_the_leftovers_of_a_program_that_ended_are_killed(log: LogSink) -> None:
    """Grandchildren do not outlive the end of their parent."""
    child = shell("sleep 1000 >/dev/null 2>&1 & echo $!", log)
    child.start()
    assert child.wait(10) == 0
    child.terminate(0)
    grandchild = int(log.tail("sh")[0])
    wait_until(lambda: not is_alive(grandchild))


PARENT = """
import sys, threading
from pathlib import Path
from streams.local.child import Child
from streams.local.log_sink import LogSink

log = LogSink(Path(sys.argv[1]) / "stack.log", echo=sys.stdout)
def run():
    script = "trap '' TERM HUP; sleep 1000 & echo $! $$; wait"
    Child("sh", ["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}, log).start()
starter = threading.Thread(target=run)
starter.start(); starter.join()
threading.Event().wait()
"""


def test_nothing_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    """SIGKILL for us is the end of our children and theirs, also when the thread that started them is long gone."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().removeprefix("sh | ").split()]
        assert [is_alive(pid) for pid in pids] == [True, True]
        parent.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
