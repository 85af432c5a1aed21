"""The stack: order, stop, services that end, and the data folder, with small shell scripts as services."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from schemas.errors import Fatal
from streams.dev.local import stack as stack_module
from streams.dev.local.process import Child, ProcessLog
from streams.dev.local.service import Environment, Server, Service, Step
from streams.dev.local.stack import Stack

ENV = {"PATH": os.defpath}
SERVE = "echo ready; while :; do sleep 0.01; done"


class Script(Service):
    """Is ready when its script has said so."""

    def __init__(self, name: str, log: ProcessLog, script: str = SERVE, *, ready_within_s: float = 10) -> None:
        super().__init__(name, log)
        self.ready_within_s, self.stop_within_s = ready_within_s, 5
        self.launches = 0
        self._script = script

    def is_ready(self) -> bool:
        return "ready" in self.log.tail(self.name)

    def _new_child(self) -> Child:
        self.launches += 1
        return Child(self.name, ["/bin/sh", "-c", self._script], ENV, self.log)


class Loading(Server):
    """Is ready when it has printed its environment."""

    def __init__(self, argv: list[str], environment: Environment, log: ProcessLog) -> None:
        super().__init__("gateway", log, argv, environment, port=0)

    def preflight(self) -> None: ...

    def is_ready(self) -> bool:
        return len(self.log.tail(self.name)) == 2


class Stubborn(Script):
    def stop(self) -> None:
        super().stop()
        raise RuntimeError("no")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ProcessLog]:
    log = ProcessLog(tmp_path / "stack.log")
    yield log
    log.close()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make_stack(tmp_path: Path, log: ProcessLog, said: list[str]) -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def make(*stages: list[Service]) -> Stack:
        stacks.append(Stack(stages, tmp_path / "data", log, said.append))
        return stacks[-1]

    yield make
    for stack in stacks:
        stack.stop()


def wait_until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def failing_step(log: ProcessLog) -> Step:
    return Step("migrate", log, lambda: Child("migrate", ["/bin/sh", "-c", "echo bad SQL; exit 1"], ENV, log))


def kill(service: Service) -> None:
    assert service.pid is not None
    os.kill(service.pid, signal.SIGKILL)


def test_stages_start_in_order_and_stop_in_reverse(
    make_stack: Callable[..., Stack], log: ProcessLog, said: list[str]
) -> None:
    """Nothing starts before what it needs is ready, nothing stops before what needs it has stopped."""
    step = Step("migrate", log, lambda: Child("migrate", ["/bin/sh", "-c", "exit 0"], ENV, log))
    with make_stack([Script("broker", log), Script("postgres", log)], [step], [Script("worker", log)]) as stack:
        assert [service.is_running for service in stack.services] == [True, True, False, True]
    assert not any(service.is_running for service in stack.services)
    assert [line.split(" (")[0] for line in said] == [
        *("broker is ready", "postgres is ready", "migrate is done", "worker is ready"),
        *("stopping worker", "stopping postgres, broker"),
    ]


def test_a_service_that_ends_stops_the_start_with_its_last_lines(
    make_stack: Callable[..., Stack], log: ProcessLog
) -> None:
    """The error has the name, the exit code and the last lines; what had started is stopped."""
    broker = Script("broker", log)
    with pytest.raises(Fatal) as failed:
        make_stack([broker], [Script("worker", log, "echo no key; exit 3")]).start()
    assert failed.value.what == "worker did not start"
    assert "exit code 3" in failed.value.why
    assert "no key" in failed.value.why
    assert str(log.path) in failed.value.hint
    assert not broker.is_running


def test_a_service_that_stays_silent_stops_the_start(make_stack: Callable[..., Stack], log: ProcessLog) -> None:
    """Readiness has a deadline; a service that misses it is stopped, too."""
    silent = Script("worker", log, "while :; do sleep 0.01; done", ready_within_s=0.1)
    with pytest.raises(Fatal, match="worker did not start") as failed:
        make_stack([silent]).start()
    assert "did not become ready within 0.1 s" in failed.value.why
    assert not silent.is_running


def test_a_failed_step_stops_the_start(make_stack: Callable[..., Stack], log: ProcessLog) -> None:
    """Later stages are not started."""
    worker = Script("worker", log)
    step = failing_step(log)
    with pytest.raises(Fatal, match="migrate failed") as failed:
        make_stack([step], [worker]).start()
    assert "bad SQL" in failed.value.why
    assert worker.launches == 0


def test_a_taken_port_is_found_before_anything_starts(make_stack: Callable[..., Stack], log: ProcessLog) -> None:
    """Ports are checked before the first service starts."""
    broker = Script("broker", log)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        gateway = Server("gateway", log, ["/bin/true"], lambda: ENV, port, setting="--port")
        with pytest.raises(Fatal, match=f"port {port} is in use"):
            make_stack([broker], [gateway]).start()
    assert broker.launches == 0


def test_a_server_loads_while_earlier_stages_start(make_stack: Callable[..., Stack], log: ProcessLog) -> None:
    """It waits for its environment, which may depend on what starts before it, and starts again without waiting."""
    script = "echo loaded; read -r environment; echo $environment; while :; do sleep 0.01; done"
    environment: dict[str, str] = {}
    server = Loading(["/bin/sh", "-c", script], lambda: environment, log)

    class Broker(Script):
        def await_ready(self) -> None:
            super().await_ready()
            wait_until(lambda: log.tail("gateway") == ["loaded"])
            environment["PASSWORD"] = "secret"

    with make_stack([Broker("broker", log)], [server]):
        assert log.tail("gateway") == ["loaded", '{"PASSWORD":"secret"}']
        server.launch()
        wait_until(server.is_ready)
        assert log.tail("gateway") == ["loaded", '{"PASSWORD":"secret"}']


def test_a_server_that_only_loads_is_stopped_without_a_word(
    make_stack: Callable[..., Stack], log: ProcessLog, said: list[str]
) -> None:
    """When the start fails before its turn: "stopping gateway" would say that it was started."""
    script = "echo loaded; read -r environment; while :; do sleep 0.01; done"
    server = Loading(["/bin/sh", "-c", script], lambda: ENV, log)
    with pytest.raises(Fatal, match="migrate failed"):
        make_stack([Script("broker", log)], [failing_step(log)], [server]).start()
    assert [line.split(" (")[0] for line in said] == ["broker is ready", "stopping broker"]
    assert server.pid is not None
    assert not psutil.pid_exists(server.pid)


def test_a_service_that_ends_stops_everything(
    make_stack: Callable[..., Stack], log: ProcessLog, said: list[str]
) -> None:
    """Nothing restarts. The error has the name and the last lines, and comes once all is stopped; a step may end."""
    step = Step("migrate", log, lambda: Child("migrate", ["/bin/sh", "-c", "exit 0"], ENV, log))
    broker, worker = Script("broker", log), Script("worker", log)
    stack = make_stack([broker], [step], [worker])
    with pytest.raises(Fatal, match="worker has ended") as ended:
        stack.run_until_signal(lambda: kill(worker))
    assert ended.value.why == "signal 9; its last lines:\n  ready"
    assert str(log.path) in ended.value.hint
    assert said[-2:] == ["worker has ended: everything stops", "stopping broker"]
    assert not broker.is_running
    assert worker.launches == 1


def test_stop_continues_when_a_service_cannot_be_stopped(
    make_stack: Callable[..., Stack], log: ProcessLog, said: list[str]
) -> None:
    """One failure leaves nothing else running, and the folder is free again."""
    with make_stack([Script("broker", log)], [Stubborn("worker", log)]) as stack:
        pass
    assert not any(service.is_running for service in stack.services)
    assert "worker could not be stopped: no" in said
    with make_stack([Script("broker", log)]):
        pass


def test_a_closed_terminal_does_not_keep_the_stack_from_stopping(tmp_path: Path, log: ProcessLog) -> None:
    """Messages to it are dropped."""

    def say(_: str) -> None:
        raise BrokenPipeError

    service = Script("broker", log)
    with Stack([[service]], tmp_path / "data", log, say):
        assert service.is_running
    assert not service.is_running


def test_one_stack_a_folder(make_stack: Callable[..., Stack], log: ProcessLog) -> None:
    """The error of the second stack names the process of the first one, which runs on."""
    first = Script("broker", log)
    with make_stack([first]):
        with pytest.raises(Fatal, match="is in use") as refused:
            make_stack([Script("broker", log)]).start()
        assert str(os.getpid()) in refused.value.why
        assert first.is_running


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path, log: ProcessLog) -> None:
    """The folder is named, with what to change."""
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"
    with pytest.raises(Fatal, match=f"{folder} cannot be used") as refused:
        Stack([[Script("broker", log)]], folder, log, print).start()
    assert "--data" in refused.value.hint


def test_a_full_disk_is_one_clear_error(
    make_stack: Callable[..., Stack], log: ProcessLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little room is found before anything is written, and the folder is not kept locked."""
    broker = Script("broker", log)
    monkeypatch.setattr(stack_module, "MIN_FREE_BYTES", 2**60)
    with pytest.raises(Fatal, match="is full"):
        make_stack([broker]).start()
    assert broker.launches == 0
    monkeypatch.setattr(stack_module, "MIN_FREE_BYTES", 1)
    with make_stack([broker]):
        assert broker.is_running
