"""Brokers and Postgres servers from the project's own local stack, each for as long as a test or a session needs it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from schemas.errors import Fatal
from streams.dev.local.brokers import Kafka, Tansu, check_kafka_is_installed
from streams.dev.local.postgres import Postgres
from streams.dev.local.process import ProcessLog
from tests.support.process_tree import continue_tree

#: Comma-separated names of what must not be skipped: CI sets kafka, so that it cannot pass without it.
REQUIRED = os.environ.get("GROK_INSIGHTS_TEST_REQUIRE", "").split(",")

Server = TypeVar("Server", Tansu, Kafka, Postgres)


@contextmanager
def running(kind: type[Server], folder: Path | None = None) -> Iterator[Server]:
    """A new server, its data in `folder` or in a temporary one; it may be killed and frozen."""
    with tempfile.TemporaryDirectory(prefix="grok-insights-test-") as temporary:
        home = folder or Path(temporary)
        with closing(ProcessLog(home / f"{kind.__name__.lower()}.log")) as log:
            server = kind(home, log)
            server.start()
            try:
                yield server
            finally:
                if server.pid is not None:
                    continue_tree(server.pid)
                server.stop()


def kafka_available() -> str | None:
    """Returns why Apache Kafka cannot run here, or None when it can; downloads nothing."""
    try:
        check_kafka_is_installed()
    except Fatal as error:
        return f"{error.what}: {error.why}"
    return None


def skip_unless_kafka() -> None:
    """Skips with the reason, or fails where Kafka is required."""
    reason = kafka_available()
    if reason is not None and "kafka" in REQUIRED:
        pytest.fail(f"Apache Kafka is required here: {reason}")
    if reason is not None:
        pytest.skip(f"Apache Kafka cannot run here: {reason}")
