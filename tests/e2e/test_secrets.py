"""No command shows any part of a secret, whatever characters it has and however it is written."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from streams.cli import COMMANDS
from streams.dev.local.ports import free_port
from streams.dev.local.postgres import Postgres
from tests.support.processes import Service

#: Pieces that occur nowhere else, between the characters that divide a URL.
PIECES = ("kanari", "stieglitz", "zeisig", "gimpel", "girlitz", "hänfling")
DATABASE_PASSWORD = "kanari/stieglitz#zeisig%gimpel?girlitz=hänfling"
OTHER_SECRET = "kanari/stieglitz#zeisig%gimpel?girlitz=hanfling"
ARGUMENTS = {
    "demo": ("demo", "--limit", "5"),
    "up": ("up", "--workers", "1", "--port", "0"),
    "dlq list": ("dlq", "list"),
    "dlq show": ("dlq", "show", "0:0"),
    "dlq replay": ("dlq", "replay", "--all"),
}
RUNNING_ON = ("worker", "standin")
ENDS_WITHIN_S = 100


@pytest.fixture(params=["encoded", "as it is"])
def service(request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path) -> Iterator[Service]:
    """Every secret has the pieces; the database refuses the password, or its URL is malformed by it."""
    password = quote(DATABASE_PASSWORD, safe="") if request.param == "encoded" else DATABASE_PASSWORD
    url = f"postgresql://grok_insights:{password}@127.0.0.1:{urlsplit(postgres.url).port}/grok_insights"
    closed = f"127.0.0.1:{free_port()}"
    settings = {
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_USERNAME": "user",
        "KAFKA_SASL_PASSWORD": OTHER_SECRET,
        "XAI_API_KEY": OTHER_SECRET,
        "GROK_MODEL": "none",
        "GROK_BASE_URL": f"http://{closed}/v1",
        "GATEWAY_PORT": "0",
        "WORKER_METRICS_PORT": "0",
        "LOG_LEVEL": "debug",
    }
    with Service(tmp_path, closed, url, **settings) as service:
        yield service


@pytest.mark.slow
def test_no_command_shows_a_part_of_a_secret(service: Service) -> None:
    """On stdout, on stderr or in a log file, while it fails, waits or works."""
    names = [name for name in COMMANDS if name != "dlq"] + ["dlq list", "dlq show", "dlq replay"]
    commands = {name: service.start(name, *ARGUMENTS.get(name, (name,))) for name in names}
    for name, command in commands.items():
        try:
            command.process.wait(5 if name in RUNNING_ON else ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            assert name in RUNNING_ON, command.log.read_text()[-2000:]
            command.stop()
    logs = [path for path in service.folder.rglob("*") if path.is_file() and path.suffix in {".log", ".json"}]
    assert len(logs) >= len(commands)
    found = {path.name: re.findall("|".join(PIECES), path.read_text(errors="replace")) for path in logs}
    assert {name: pieces for name, pieces in found.items() if pieces} == {}
