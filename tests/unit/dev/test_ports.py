"""Ports on loopback."""

import socket

import pytest

from schemas.errors import Fatal
from streams.dev.local.ports import LOOPBACK, check_port_is_free, free_port


def test_free_ports_are_free_and_never_given_twice() -> None:
    """Parts that have not started yet do not get the same port."""
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    for port in ports:
        check_port_is_free(port, "--port")


@pytest.mark.parametrize("address", [LOOPBACK, "0.0.0.0"])
def test_a_taken_port_is_named_with_the_option_that_changes_it(address: str) -> None:
    """The message says which port, who has it and what to change, also when the other one listens everywhere."""
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Fatal) as refused:
            check_port_is_free(port, "--port")
    assert refused.value.what == f"port {port} is in use"
    assert "--port" in refused.value.hint


def test_lingering_connections_do_not_make_a_port_taken() -> None:
    """The port of a server that has just stopped can be used again at once."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((LOOPBACK, port)), server.accept()[0] as accepted:
            accepted.close()
    check_port_is_free(port, "--port")
