"""infra/setup.sh, with a stand-in for pip: it shows its progress and the reason of a failure."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
COLLECTED = "\\n".join(f"Collecting package-{number}==1.0 (from -r requirements.lock)" for number in range(45))


def run_setup(venv: Path, pip: str) -> "subprocess.CompletedProcess[str]":
    (venv / "bin").mkdir(parents=True)
    program = venv / "bin/pip"
    program.write_text(f"#!/bin/sh\n{pip}\n")
    program.chmod(0o755)
    environment = {**os.environ, "PYTHON": sys.executable, "VENV": str(venv)}
    return subprocess.run(
        ["sh", "infra/setup.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_the_installation_says_how_far_it_is(tmp_path: Path) -> None:
    """A minute without output looks like a hang; pip's own output has hundreds of lines."""
    done = run_setup(tmp_path, f"printf '{COLLECTED}\\nInstalling collected packages: a, b\\n'")
    lines = done.stderr.splitlines()
    assert done.returncode == 0
    assert [line.split()[0] for line in lines if "packages" in line and " of " in line] == ["20", "40"]
    assert "package-7" not in done.stderr


def test_pips_error_is_shown(tmp_path: Path) -> None:
    """With what to do about it; the exit code is 1."""
    done = run_setup(tmp_path, "echo 'ERROR: no matching distribution' >&2; exit 1")
    assert done.returncode == 1
    assert "ERROR: no matching distribution" in done.stderr
    assert "error: the packages cannot be installed" in done.stderr
