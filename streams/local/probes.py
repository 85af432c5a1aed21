"""Readiness probes that speak the real protocols. Each asks once, waits at most two seconds and never raises."""

import http.client
import socket
import struct

from streams.local.ports import LOOPBACK

TIMEOUT_S = 2.0
# ApiVersions, version 0, correlation id 1, no client id.
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
# Metadata, version 1, correlation id 1, no client id, no topics wanted.
_METADATA = struct.pack(">ihhihi", 14, 3, 1, 1, -1, 0)


def http_is_ready(port: int, path: str) -> bool:
    """GET http://127.0.0.1:port/path answers 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def kafka_answers(port: int) -> bool:
    """A broker answers an ApiVersions request."""
    return _ask(port, _API_VERSIONS, 4) is not None


def kafka_has_broker(port: int) -> bool:
    """The cluster names at least one broker that takes requests: topics can be created from now on."""
    reply = _ask(port, _METADATA, 12)
    return reply is not None and struct.unpack_from(">i", reply, 8)[0] > 0


def postgres_is_ready(port: int, user: str, database: str) -> bool:
    """The server answers a start-up message with a request to authenticate, not with "is starting up"."""
    parameters = b"".join(f"{part}\0".encode() for part in ("user", user, "database", database)) + b"\0"
    message = struct.pack(">ii", 8 + len(parameters), 3 << 16) + parameters
    return _ask(port, message, 1) == b"R"


def _ask(port: int, request: bytes, wanted_bytes: int) -> bytes | None:
    """The first `wanted_bytes` of the answer, or None without one."""
    try:
        with socket.create_connection((LOOPBACK, port), TIMEOUT_S) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                reply = answer.read(wanted_bytes)
    except OSError:
        return None
    return reply if len(reply) == wanted_bytes else None
