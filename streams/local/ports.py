"""Ports on loopback: one that is free, or a clear refusal when a chosen one is not."""

import errno
import secrets
import socket

from schemas.errors import Fatal

LOOPBACK = "127.0.0.1"
# Below the range for outgoing connections of Linux (32768) and above the ports that programs are known by.
_LOWEST = 17_000
_COUNT = 15_000
_given: set[int] = set()


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago and that this process has not given out before.

    Not one that the kernel picks: its range also serves outgoing connections, which would take the port again before
    the server that it is meant for has started.
    """
    for _ in range(1000):
        port = _LOWEST + secrets.randbelow(_COUNT)
        if port not in _given and _can_bind(port):
            _given.add(port)
            return port
    raise Fatal("no free port on loopback", f"none between {_LOWEST} and {_LOWEST + _COUNT}", "stop other programs")


def check_port_is_free(port: int, setting: str) -> None:
    """Raises Fatal when nobody can listen on `port`; `setting` names the option or variable that changes it."""
    hint = f"choose another port with {setting}"
    if not 0 < port < 65536:
        raise Fatal(f"port {port} does not exist", "ports are 1 to 65535", hint, exit_code=2)
    try:
        _bind(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"another process listens on {LOOPBACK}:{port}"
            raise Fatal(f"port {port} is in use", why, f"stop that process or {hint}") from error
        raise Fatal(f"port {port} cannot be opened", error.strerror or str(error), hint) from error


def _can_bind(port: int) -> bool:
    try:
        _bind(port)
    except OSError:
        return False
    return True


def _bind(port: int) -> None:
    with socket.socket() as probe:
        # As servers do: connections of an ended server that still linger are no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
