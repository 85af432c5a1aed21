"""The stack's order, its restarts and its end, with small shell scripts as parts."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.errors import Fatal
from streams.local import data_folder
from streams.local.child import Child
from streams.local.data_folder import DataFolder
from streams.local.log_sink import LogSink
from streams.local.processes import Server, Step
from streams.local.service import Service
from streams.local.stack import Stack

ENV = {"PATH": os.defpath}
SERVE = "echo ready; while :; do sleep 0.01; done"


class Script(Service):
    """Ready when its script has said so."""

    def __init__(self, name: str, log: LogSink, script: str = SERVE, *, ready_within_s: float = 10) -> None:
        super().__init__(name, log, ready_within_s=ready_within_s, stop_within_s=5)
        self.launches = 0
        self._script = script

    def is_ready(self) -> bool:
        return "ready" in self._log.tail(self.name)

    def _new_child(self) -> Child:
        self.launches += 1
        return Child(self.name, ["/bin/sh", "-c", self._script], ENV, self._log)


class Forgetful(Script):
    forgets = True


class Stubborn(Script):
    def stop(self) -> None:
        super().stop()
        raise RuntimeError("no")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogSink]:
    sink = LogSink(tmp_path / "stack.log")
    yield sink
    sink.close()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make_stack(tmp_path: Path, log: LogSink, said: list[str]) -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def make(*stages: list[Service]) -> Stack:
        stacks.append(Stack(stages, DataFolder(tmp_path / "data"), log, said.append))
        return stacks[-1]

    yield make
    for stack in stacks:
        stack.stop()


@pytest.fixture
def watched() -> Iterator[Callable[[Stack], None]]:
    """Watches a started stack in a thread until the test ends."""
    running: list[tuple[Stack, threading.Thread]] = []

    def watch(stack: Stack) -> None:
        thread = threading.Thread(target=stack.watch)
        thread.start()
        running.append((stack, thread))

    yield watch
    for stack, thread in running:
        stack.stop()
        thread.join()


def wait_until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def kill(part: Service) -> None:
    assert part.pid is not None
    os.kill(part.pid, signal.SIGKILL)


def test_stages_start_in_order_and_stop_in_reverse(
    make_stack: Callable[..., Stack], log: LogSink, said: list[str]
) -> None:
    """Nothing starts before what it needs is ready, nothing stops before what needs it has stopped."""
    step = Step("migrate", ["/bin/sh", "-c", "exit 0"], lambda: ENV, log)
    with make_stack([Script("broker", log), Script("postgres", log)], [step], [Script("worker", log)]) as stack:
        assert [part.is_running for part in stack.parts] == [True, True, False, True]
    assert not any(part.is_running for part in stack.parts)
    assert [line.split(" (")[0] for line in said] == [
        *("broker is ready", "postgres is ready", "migrate is done", "worker is ready"),
        *("stopping worker", "stopping postgres, broker"),
    ]


def test_a_part_that_ends_stops_the_start_with_its_last_lines(make_stack: Callable[..., Stack], log: LogSink) -> None:
    """The error says who failed, how and with which words; what had started is stopped."""
    broker = Script("broker", log)
    with pytest.raises(Fatal) as failed:
        make_stack([broker], [Script("worker", log, "echo no key; exit 3")]).start()
    assert failed.value.what == "worker did not start"
    assert "exit code 3" in failed.value.why
    assert "no key" in failed.value.why
    assert str(log.path) in failed.value.hint
    assert not broker.is_running


def test_a_part_that_stays_silent_stops_the_start(make_stack: Callable[..., Stack], log: LogSink) -> None:
    """Readiness has a deadline, and the silent part is stopped too."""
    silent = Script("worker", log, "while :; do sleep 0.01; done", ready_within_s=0.1)
    with pytest.raises(Fatal, match="worker did not start") as failed:
        make_stack([silent]).start()
    assert "did not become ready within 0.1 s" in failed.value.why
    assert not silent.is_running


def test_a_failed_step_stops_the_start(make_stack: Callable[..., Stack], log: LogSink) -> None:
    """What comes after a migration that failed is not started."""
    worker = Script("worker", log)
    step = Step("migrate", ["/bin/sh", "-c", "echo bad SQL; exit 1"], lambda: ENV, log)
    with pytest.raises(Fatal, match="migrate did not start") as failed:
        make_stack([step], [worker]).start()
    assert "bad SQL" in failed.value.why
    assert worker.launches == 0


def test_a_taken_port_is_found_before_anything_starts(make_stack: Callable[..., Stack], log: LogSink) -> None:
    """The last part's port is checked before the first part starts."""
    broker = Script("broker", log)
    gateway = Server("gateway", ["/bin/true"], lambda: ENV, log, port=0, setting="--port")
    with pytest.raises(Fatal, match="port 0"):
        make_stack([broker], [gateway]).start()
    assert broker.launches == 0


def test_a_dead_part_is_started_again(
    make_stack: Callable[..., Stack], watched: Callable[[Stack], None], log: LogSink, said: list[str]
) -> None:
    """Only the dead one: the others go on undisturbed, and a person is told."""
    broker, worker = Script("broker", log), Script("worker", log)
    stack = make_stack([broker], [worker])
    stack.start()
    watched(stack)
    kill(worker)
    wait_until(lambda: worker.launches == 2 and worker.is_running)
    assert broker.launches == 1
    assert "worker ended with signal 9: starts again in 1 s" in said


def test_all_that_came_after_a_forgetful_part_starts_anew(
    make_stack: Callable[..., Stack], watched: Callable[[Stack], None], log: LogSink
) -> None:
    """A broker that lost its topics gets them again before a worker sees it."""
    database, broker, worker = Script("postgres", log), Forgetful("broker", log), Script("worker", log)
    stack = make_stack([database], [broker], [worker])
    stack.start()
    watched(stack)
    kill(broker)
    wait_until(lambda: worker.launches == 2 and worker.is_running)
    assert [database.launches, broker.launches] == [1, 2]


def test_stop_goes_on_when_a_part_cannot_be_stopped(
    make_stack: Callable[..., Stack], log: LogSink, said: list[str]
) -> None:
    """One failure leaves nothing else running, and the folder is free again."""
    with make_stack([Script("broker", log)], [Stubborn("worker", log)]) as stack:
        pass
    assert not any(part.is_running for part in stack.parts)
    assert "worker could not be stopped: no" in said
    with make_stack([Script("broker", log)]):
        pass


def test_a_closed_terminal_does_not_keep_the_stack_from_stopping(tmp_path: Path, log: LogSink) -> None:
    """Whoever reads our messages may be gone."""

    def say(_: str) -> None:
        raise BrokenPipeError

    part = Script("broker", log)
    with Stack([[part]], DataFolder(tmp_path / "data"), log, say):
        assert part.is_running
    assert not part.is_running


def test_one_stack_a_folder(make_stack: Callable[..., Stack], log: LogSink) -> None:
    """The second stack is told who runs the first one, and disturbs nothing."""
    first = Script("broker", log)
    with make_stack([first]):
        with pytest.raises(Fatal, match="is in use") as refused:
            make_stack([Script("broker", log)]).start()
        assert str(os.getpid()) in refused.value.why
        assert first.is_running


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    """The folder is named, with what to change."""
    (tmp_path / "file").touch()
    with pytest.raises(Fatal, match="cannot be written") as refused:
        DataFolder(tmp_path / "file" / "data").acquire()
    assert "--data" in refused.value.hint


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room is found before anything is written, and the folder is not kept locked."""
    monkeypatch.setattr(data_folder, "MIN_FREE_BYTES", 2**60)
    folder = DataFolder(tmp_path / "data")
    with pytest.raises(Fatal, match="is full"):
        folder.acquire()
    monkeypatch.setattr(data_folder, "MIN_FREE_BYTES", 1)
    folder.acquire()
    folder.release()
