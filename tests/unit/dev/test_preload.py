"""Servers of the local stack load their code while the broker starts."""

import subprocess
import sys


def test_importing_a_servers_command_imports_the_server() -> None:
    """An import within its function would come after the broker instead, and cost each start a second."""
    look = "import sys, streams.commands.gateway, streams.commands.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert {"streams.gateway.main", "streams.worker.main"} <= set(done.stdout.split())
