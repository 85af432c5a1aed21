"""Ports on loopback: finds free ones, and probes whether the server behind one is ready."""

import contextlib
import errno
import http.client
import secrets
import socket
import struct

from schemas.errors import Fatal

LOOPBACK = "127.0.0.1"
# Below the range for outgoing connections of Linux (32768) and above the ports of well-known programs.
_LOWEST = 17_000
_COUNT = 15_000
_handed_out: set[int] = set()

PROBE_TIMEOUT_S = 2.0
# Metadata, version 1, correlation id 1, no client id, no topics wanted.
_METADATA = struct.pack(">ihhihi", 14, 3, 1, 1, -1, 0)


def free_port() -> int:
    """Returns a TCP port on loopback that was free a moment ago and that this process has not returned before.

    The kernel's own choice (port 0) would lie in the range for outgoing connections, one of which could take it before
    the server has started.
    """
    for _ in range(1000):
        port = _LOWEST + secrets.randbelow(_COUNT)
        with contextlib.suppress(OSError):
            if port not in _handed_out:
                _bind(port)
                _handed_out.add(port)
                return port
    raise Fatal("no free port on loopback", f"none between {_LOWEST} and {_LOWEST + _COUNT}", "stop other programs")


def check_port_is_free(port: int, setting: str) -> None:
    """Raises Fatal when `port` cannot be listened on; `setting` names the option or variable that changes it."""
    hint = f"choose another port with {setting}"
    try:
        _bind(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"another process listens on {LOOPBACK}:{port}"
            raise Fatal(f"port {port} is in use", why, f"stop that process or {hint}") from error
        raise Fatal(f"port {port} cannot be opened", error.strerror or str(error), hint) from error


def _bind(port: int) -> None:
    with socket.socket() as probe:
        # As servers do: lingering connections of a server that has ended do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))


def http_is_ready(port: int, path: str) -> bool:
    """Whether GET http://127.0.0.1:port/path answers 200. As every probe it never raises."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def kafka_has_broker(port: int) -> bool:
    """Whether the cluster names at least one broker that takes requests: topics can be created from then on."""
    reply = _exchange(port, _METADATA, 12)
    return reply is not None and struct.unpack_from(">i", reply, 8)[0] > 0


def postgres_is_ready(port: int, user: str, database: str) -> bool:
    """Whether the server asks for authentication instead of answering "is starting up"."""
    parameters = b"".join(f"{part}\0".encode() for part in ("user", user, "database", database)) + b"\0"
    message = struct.pack(">ii", 8 + len(parameters), 3 << 16) + parameters
    return _exchange(port, message, 1) == b"R"


def _exchange(port: int, request: bytes, reply_bytes: int) -> bytes | None:
    """Sends the request; returns the first bytes of the answer, or None without one."""
    try:
        with socket.create_connection((LOOPBACK, port), PROBE_TIMEOUT_S) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                reply = answer.read(reply_bytes)
    except OSError:
        return None
    return reply if len(reply) == reply_bytes else None
