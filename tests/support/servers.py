"""Brokers and Postgres servers from the project's own local stack, each for as long as a test or a session needs it.

Also servers that are not what a client expects.
"""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest

from schemas.errors import Fatal
from streams.dev.local.brokers import Kafka, Tansu, check_kafka_is_installed
from streams.dev.local.ports import LOOPBACK, free_port
from streams.dev.local.postgres import Postgres, command_prefix
from streams.dev.local.process import ProcessLog
from tests.support.process_tree import continue_tree
from tests.support.waiting import wait_until

#: Comma-separated names of what must not be skipped: CI sets kafka, so that it cannot pass without it.
REQUIRED = os.environ.get("GROK_INSIGHTS_TEST_REQUIRE", "").split(",")

#: Too long for the DNS: the resolver refuses it at once, with the error of a name that does not exist.
UNKNOWN_HOST = "nowhere." * 32 + "invalid"

Server = TypeVar("Server", Tansu, Kafka, Postgres)


@contextmanager
def running(kind: type[Server], folder: Path | None = None) -> Iterator[Server]:
    """A new server, its data in `folder` or in a temporary one; it may be killed and frozen."""
    with tempfile.TemporaryDirectory(prefix="grok-insights-test-") as temporary:
        root = folder or Path(temporary)
        with closing(ProcessLog(root / f"{kind.__name__.lower()}.log")) as log:
            server = kind(root, log)
            server.start()
            try:
                yield server
            finally:
                if server.pid is not None:
                    continue_tree(server.pid)
                server.stop()


def tansu_advertising(address: str) -> type[Tansu]:
    """A kind of broker for `running` that sends its clients on to `address`."""

    class Misadvertised(Tansu):
        def __init__(self, data_dir: Path, log: ProcessLog) -> None:
            super().__init__(data_dir, log)
            self.advertised = address

    return Misadvertised


@contextmanager
def running_pgbouncer(database_url: str, folder: Path, *more_settings: str) -> Iterator[str]:
    """PgBouncer in transaction mode on two server connections; yields DATABASE_URL by way of it, without parameters.

    Skips with the reason, or fails where pgbouncer is required, when the program is not installed.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None and "pgbouncer" in REQUIRED:
        pytest.fail("pgbouncer is required here, and is not installed")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    target, port = urlsplit(database_url), free_port()
    settings = folder / "pgbouncer.ini"
    (folder / "users.txt").write_text(f'"{target.username}" "{target.password}"\n')
    more = "\n".join(more_settings)
    settings.write_text(f"""
[databases]
* = host={target.hostname} port={target.port}
[pgbouncer]
listen_addr = {LOOPBACK}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 2
{more}
""")
    argv = [*command_prefix(folder, Path(program)), program, str(settings)]
    with (folder / "pgbouncer.log").open("ab") as log:
        process = subprocess.Popen(argv, stderr=log, stdout=log)
    try:
        wait_until(lambda: is_listening(port), timeout_s=20, what="PgBouncer listens")
        yield f"postgresql://{target.username}:{target.password}@{LOOPBACK}:{port}{target.path}"
    finally:
        process.terminate()
        process.wait()


def make_certificate(folder: Path, name: str) -> None:
    """Writes `name`.crt, which signs itself and is valid for 127.0.0.1, and `name`.key."""
    subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    files = ("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)


def tls_server(folder: Path) -> ssl.SSLContext:
    """The context of a server with the certificate server.crt in `folder`, made here."""
    make_certificate(folder, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


@asynccontextmanager
async def listening(answer: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that sends `answer` to what it receives and closes; with None it never answers."""

    ends: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) and answer is None:
            await reader.read()  # until the client gives up
        writer.write(answer or b"")
        writer.close()
        await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(asyncio.create_task(serve(reader, writer)))

    async with await asyncio.start_server(accept, LOOPBACK, 0, ssl=tls) as server:
        yield f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*ends, return_exceptions=True)  # the client may have closed first


@contextmanager
def silent_server() -> Iterator[int]:
    """Yields the port of a server that lets clients connect, since the kernel does that, and never answers."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield int(server.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether something accepts connections on the loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


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
