"""The settings as Faust wants them; the counterpart of streams.kafka_client for aiokafka's own clients."""

from pathlib import Path
from typing import Any

import faust
from faust.types.auth import CredentialsT

from schemas.errors import Fatal
from schemas.settings import Settings
from streams.kafka_client import client_options


def faust_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of faust.App: brokers, login, data folder (made here). Raises Fatal."""
    options = client_options(settings)
    servers = options["bootstrap_servers"].split(",")
    return {
        "broker": [f"kafka://{server.strip()}" for server in servers],
        "broker_credentials": _credentials(options),
        # A table belongs to its changelog: under another prefix or group it is another one.
        "datadir": _made(settings.data_dir / "tables" / settings.topics.answers_changelog),
        "loglevel": settings.log_level,
    }


def _made(folder: Path) -> Path:
    """Faust itself makes only the last part of the path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fatal(f"{folder} cannot be made", error.strerror or "", "set DATA_DIR to a folder of yours") from error
    return folder


def _credentials(options: dict[str, Any]) -> CredentialsT | None:
    ssl_context = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=ssl_context,
        )
    return faust.SSLCredentials(context=ssl_context) if ssl_context is not None else None
