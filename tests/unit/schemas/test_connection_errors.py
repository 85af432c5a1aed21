"""Connections that fail are described in the same words whatever they were to."""

import errno
import socket
import ssl

import pytest

from schemas.connection_errors import describe_connection_error

WHERE = "localhost:9092"
#: As asyncio puts the attempts to reach several addresses of one host into one error.
SEVERAL = "Multiple exceptions: [Errno {}] Connect call failed ('::1', 9, 0, 0), [Errno 111] Connect call failed"


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "no connection to localhost:9092: Connection refused"),
        (OSError(SEVERAL.format(111)), "no connection to localhost:9092: Connection refused"),
        (OSError(SEVERAL.format(113)), "no connection to localhost:9092: No route to host, Connection refused"),
        (ConnectionResetError(), "no connection to localhost:9092: it was closed or refused"),
        (TimeoutError(), "no answer from localhost:9092"),
        (TimeoutError(errno.ETIMEDOUT, "x"), "no answer from localhost:9092"),
        (socket.gaierror(-2, "Name unknown"), "unknown host localhost:9092: Name unknown"),
        (ssl.SSLError(1, "x"), "TLS with localhost:9092 failed: x"),
    ],
)
def test_what_the_system_says_is_named_with_the_address(error: OSError, described: str) -> None:
    """On one line."""
    assert describe_connection_error(error, WHERE) == described
