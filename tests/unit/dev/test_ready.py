"""What `up` prints once everything is ready: commands that work as they are printed."""

import re
import sys
from pathlib import Path

import pytest

from schemas.kafka import Topics
from streams.dev.local.ports import free_port
from streams.dev.local.process import ProcessLog
from streams.dev.local.ready import describe_stack, program_as_typed
from streams.dev.local.wiring import BrokerName, build_stack

DATABASE = {"DATABASE_URL": "postgresql://db.example.com/insights"}


def described(folder: Path, broker: BrokerName = "tansu", *, standin: bool = False, **settings: str) -> str:
    """Of a stack that was not started, whose database is therefore the user's."""
    log = ProcessLog(folder / "stack.log")
    stack = build_stack(broker, 1, free_port(), folder, {**DATABASE, **settings}, log, standin=standin)
    return describe_stack(stack, Topics(), "local")


def new_program(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.touch(mode=0o755)
    return path


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs as `make up` runs it: by a path, from the folder of the repository, without its folder on the PATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [".venv/bin/grok-insights", "up"])
    return new_program(tmp_path / ".venv/bin/grok-insights")


def test_a_program_that_is_not_on_the_path_is_named_by_its_path(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder where the user is, if it is below; a bare name there would not be found."""
    assert program_as_typed() == ".venv/bin/grok-insights"
    monkeypatch.chdir(program.parent)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert program_as_typed() == "./grok-insights"
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert program_as_typed() == str(program).lstrip("/")
    (other := program.parents[1] / "other folder").mkdir()
    monkeypatch.chdir(other)
    assert program_as_typed() == str(program)


def test_a_program_on_the_path_is_named_by_its_name(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not another program of the same name."""
    monkeypatch.setenv("PATH", str(program.parent))
    assert program_as_typed() == "grok-insights"
    monkeypatch.setenv("PATH", f"{new_program(program.parents[2] / 'other/grok-insights').parent}:{program.parent}")
    assert program_as_typed() == ".venv/bin/grok-insights"


def test_a_module_is_named_with_its_python(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with a space is quoted for the shell."""
    monkeypatch.setattr(sys, "argv", ["streams/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(new_program(program.parents[2] / "my env/bin/python")))
    assert program_as_typed() == "'my env/bin/python' -m streams"


def test_each_command_is_set_apart_from_what_it_does(program: Path, tmp_path: Path) -> None:
    """In two columns, whatever the length of the path."""
    lines = [line for line in described(tmp_path).splitlines() if ".venv/bin/grok-insights" in line]
    ends = {gap.end() for line in lines for gap in re.finditer(r"(?<=\S) {2,}(?=\S)", line)}
    assert (len(lines), len(ends)) == (3, 1)


def test_the_settings_that_the_stack_chose_are_printed_to_be_copied(tmp_path: Path) -> None:
    """And no others: the user has those. All members of the group need the same session timeout.

    On Apache Kafka it replaces the value that a terminal may have of a stack on Tansu.
    """
    [export] = re.findall(r"export .*", described(tmp_path))
    assert re.fullmatch(r"export KAFKA_BOOTSTRAP_SERVERS=127\.0\.0\.1:\d+ KAFKA_SESSION_TIMEOUT_S=2", export)
    [export] = re.findall(r"export .*", described(tmp_path, "kafka"))
    assert re.fullmatch(r"export KAFKA_BOOTSTRAP_SERVERS=127\.0\.0\.1:\d+ KAFKA_SESSION_TIMEOUT_S=10", export)
    own = described(tmp_path, KAFKA_BOOTSTRAP_SERVERS="broker:9092")
    assert "export" not in own
    assert "broker:9092, as set in KAFKA_BOOTSTRAP_SERVERS" in own


def test_a_worker_that_is_added_asks_the_stacks_analyser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line has what it needs for that, but never a user's key."""
    monkeypatch.setenv("XAI_API_KEY", "xai-secret-key")
    shown = described(tmp_path, ANALYSER="local", GROK_MODEL="grok-x")
    assert re.findall(r"export .*", shown)[0].endswith(" ANALYSER=local")
    assert "XAI_API_KEY" not in shown
    shown = described(tmp_path, ANALYSER="grok", GROK_BASE_URL="https://api.x.ai/v1", GROK_MODEL="grok-x")
    expected = " ANALYSER=grok GROK_BASE_URL=https://api.x.ai/v1 GROK_MODEL=grok-x"
    assert re.findall(r"export .*", shown)[0].endswith(expected)
    assert "adds a worker; set XAI_API_KEY there, too" in shown
    assert "xai-secret-key" not in shown
    shown = described(tmp_path, ANALYSER="local", standin=True)
    expected = r" ANALYSER=grok GROK_BASE_URL=http://127\.0\.0\.1:\d+/v1 GROK_MODEL=standin XAI_API_KEY=standin"
    assert re.search(f"export .*{expected}\n", shown)
