"""Servers of the local stack load their code while the broker starts."""

import subprocess
import sys


def test_importing_a_servers_command_imports_the_server() -> None:
    """An import within its function would come after the broker instead, and cost each start a second."""
    look = "import sys, streams.commands.{0}; print('streams.{0}.main' in sys.modules)"
    for name in ("worker", "gateway"):
        done = subprocess.run([sys.executable, "-c", look.format(name)], capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"
