"""`grok-insights demo`, run as a user runs it: it succeeds, its figures add up, and it leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.processes import get
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

LIMIT = 120
COMMAND = (sys.executable, "-m", "streams", "demo")
#: As a script's background job is started: SIGINT is ignored from the beginning.
IN_BACKGROUND = ("sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND)


def environment(data_dir: Path) -> dict[str, str]:
    return {**os.environ, "DATA_DIR": str(data_dir)}


def run(data_dir: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    argv = [*COMMAND, *options]
    return subprocess.run(argv, env=environment(data_dir), capture_output=True, text=True, timeout=150, check=False)


def figures_of(finished: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert finished.returncode == 0, finished.stderr
    document: dict[str, Any] = json.loads(finished.stdout)
    return document


def assert_nothing_is_left(data_dir: Path, pids: dict[str, int]) -> None:
    """No process of the stack, none that works in its data folder, and no data."""
    assert [name for name, pid in pids.items() if psutil.pid_exists(pid)] == []
    assert processes_with(str(data_dir)) == []
    assert [path.name for path in data_dir.iterdir()] == ["logs"]


def processes_with(text: str) -> list[str]:
    """Returns the command lines and environments of other processes in which the text occurs."""
    processes = psutil.process_iter(["pid", "cmdline", "environ"])
    return [str(process.info) for process in processes if text in str(process.info) and process.pid != os.getpid()]


def test_with_the_local_analyser_the_figures_add_up(tmp_path: Path) -> None:
    """in = analysed + cached + filtered + dead, without a call."""
    shown = figures_of(run(tmp_path, "--json", "--limit", str(LIMIT)))
    conversations = shown["conversations"]
    assert conversations["in"] == LIMIT == sum(count for name, count in conversations.items() if name != "in")
    assert conversations["dead"] == 0
    assert shown["calls"] == {"provider": 0, "counted_by_workers": 0}
    assert shown["cost_usd_ticks"] == 0
    assert len(shown["examples"]) == 5
    assert_nothing_is_left(tmp_path, shown["pids"])


@pytest.mark.slow
def test_a_key_for_grok_alone_costs_nothing(tmp_path: Path) -> None:
    """The demo needs no model either: it is free unless ANALYSER=grok."""
    argv = [*COMMAND, "--json", "--limit", "20"]
    with_key = {**environment(tmp_path), "XAI_API_KEY": "xai-secret-key"}
    finished = subprocess.run(argv, env=with_key, capture_output=True, text=True, timeout=150, check=False)
    assert figures_of(finished)["analyser"] == "local"


@pytest.mark.slow
def test_in_a_terminal_the_bars_end_before_the_stop(tmp_path: Path) -> None:
    """The lines of the stop follow below them, then the tables, and at the end what to run next."""
    terminal = Terminal(["demo", "--limit", "20"], {**environment(tmp_path), "MAKELEVEL": "1"})
    assert terminal.process.wait(120) == 0
    wait_until(lambda: "Next:" in terminal.text, what="the last line")
    before, _, after = terminal.text.partition("  stopping ")
    assert re.search(r"posted +━+ +20/20", before)
    assert "━" not in after
    assert after.splitlines()[-1].startswith("  Next: make up (")


@pytest.mark.slow
def test_a_kept_stack_runs_until_ctrl_c(tmp_path: Path) -> None:
    """The report comes first, then the addresses, which answer; Ctrl-C removes everything, with exit code 0."""
    argv = [*COMMAND, "--keep", "--limit", "20"]
    with subprocess.Popen(
        argv, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        timer = threading.Timer(120, process.kill)
        timer.start()
        assert process.stderr is not None
        shown = "".join(iter_until(process.stderr, "Ctrl-C stops everything."))
        gateway = re.search(r"gateway +(http://\S+)", shown)
        assert gateway is not None, shown
        assert get(f"{gateway[1]}/readyz")[0] == 200
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
        timer.cancel()
    assert process.returncode == 0
    assert "conversations in" in output
    assert_nothing_is_left(tmp_path, {})


def iter_until(lines: Iterable[str], last: str) -> Iterator[str]:
    for line in lines:
        yield line
        if last in line:
            return


def test_with_the_standin_no_text_is_asked_twice(tmp_path: Path) -> None:
    """The stand-in, which counts for itself, saw as many calls as there are distinct texts."""
    shown = figures_of(run(tmp_path, "--json", "--limit", str(LIMIT), "--grok-standin"))
    assert shown["ok"] is True
    assert shown["calls"]["provider"] == shown["distinct_texts"] == shown["conversations"]["analysed"] > 0
    assert shown["calls"]["counted_by_workers"] == shown["calls"]["provider"]
    assert shown["conversations"]["cached"] > 0
    assert shown["conversations"]["filtered"] > 0
    assert shown["cost_usd_ticks"] > 0
    assert {"tansu", "postgres", "gateway", "standin", "worker-1", "worker-2"} == shown["pids"].keys()
    assert_nothing_is_left(tmp_path, shown["pids"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "number"), [(COMMAND, signal.SIGINT), (COMMAND, signal.SIGTERM), (IN_BACKGROUND, signal.SIGTERM)]
)
def test_stopped_in_the_middle_it_leaves_nothing(tmp_path: Path, argv: tuple[str, ...], number: signal.Signals) -> None:
    """Exit code 130, as for Ctrl-C; data and processes are gone."""
    with subprocess.Popen(argv, env=environment(tmp_path), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # A stack that never starts must not hold the test: the pipe ends with the process.
        timer = threading.Timer(60, process.kill)
        timer.start()
        assert any("gateway is ready" in line for line in process.stderr)
        process.send_signal(number)
        process.stderr.read()
        assert process.wait() == 130
        timer.cancel()
    assert_nothing_is_left(tmp_path, {})


def test_wrong_settings_are_reported_before_anything_starts(tmp_path: Path) -> None:
    """Exit code 2: the command was misused, and no folder was created."""
    argv = [*COMMAND, "--json"]
    wrong = {**environment(tmp_path / "data"), "GROK_MODL": "x"}
    finished = subprocess.run(argv, env=wrong, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert "did you mean GROK_MODEL?" in finished.stderr
    assert not (tmp_path / "data").exists()
