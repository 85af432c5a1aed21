"""Says why no broker can be used, for each address: unknown host, no connection, TLS, login or no answer.

aiokafka 0.14 only logs why a connection failed, and the KafkaConnectionError or NodeNotReadyError that it raises then
has neither host nor cause. Here the cause is kept on its way from the connection to the error.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from aiokafka import client
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from schemas.connection_errors import describe_connection_error

CHECK_SERVERS = "check KAFKA_BOOTSTRAP_SERVERS and that the broker runs"
_CHECK_PROTOCOL = (
    "check KAFKA_SECURITY_PROTOCOL: does that port expect TLS, a client certificate (KAFKA_SSL_CERTFILE) or a login?"
)
_CHECK_TLS = "check KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CAFILE and KAFKA_SSL_CERTFILE"
_CHECK_ADVERTISED = "check that this broker runs, its advertised.listeners and, with TLS, the names in its certificate"


class _Failure(NamedTuple):
    why: str
    hint: str


class UnreachableBrokersError(KafkaConnectionError):  # type: ignore[misc]
    """No bootstrap server can be used. `why` names each address and its cause, without secrets."""

    def __init__(self, failures: Sequence[_Failure]) -> None:
        self.why = "; ".join(failure.why for failure in failures)
        self.hint = "; ".join(dict.fromkeys(failure.hint for failure in failures))
        super().__init__(self.why)


class UnreachableNodeError(NodeNotReadyError):  # type: ignore[misc]
    """A broker cannot be reached where the cluster says that it is. `why` names address and cause, without secrets."""

    def __init__(self, failure: _Failure) -> None:
        self.why = f"{failure.why}; it is an address that the brokers advertise"
        self.hint = _CHECK_ADVERTISED
        super().__init__(self.why)


_create_conn, _bootstrap, _send = client.create_conn, AIOKafkaClient.bootstrap, AIOKafkaClient.send

#: Why connections failed, by address, since the bootstrap or the request began. A task that aiokafka starts meanwhile
#: keeps the dictionary, which never holds more than the addresses of one cluster.
_failures: ContextVar[dict[str, _Failure] | None] = ContextVar("failures", default=None)

#: The attribute of a client with its latest UnreachableNodeError.
_LATEST = "_latest_unreachable_node"


def name_unreachable_brokers() -> None:
    """For every Kafka client of this process; may be called any number of times."""
    client.create_conn = _create_conn_and_keep_failure
    AIOKafkaClient.bootstrap = _bootstrap_or_explain
    AIOKafkaClient.send = _send_or_explain


def check_silent(ssl_context: object | None) -> str:
    """Returns what to check when brokers do not answer.

    One without TLS may take the handshake for the beginning of a request, and wait for the rest.
    """
    if ssl_context is None:
        return CHECK_SERVERS
    return f"{CHECK_SERVERS}, or KAFKA_SECURITY_PROTOCOL: that port may not speak TLS"


def latest_unreachable_node(kafka_client: AIOKafkaClient) -> UnreachableNodeError | None:
    """Returns why the latest request that found no connection failed, which aiokafka's producer only logs."""
    return getattr(kafka_client, _LATEST, None)


def addresses(kafka_client: AIOKafkaClient) -> list[str]:
    """Returns host:port of each bootstrap server, in a fixed order."""
    return sorted(_address(host, port) for host, port, _ in kafka_client.hosts)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _create_conn_and_keep_failure(host: str, port: int, **options: Any) -> Any:
    try:
        return await _create_conn(host, port, **options)
    except (OSError, KafkaError, asyncio.CancelledError) as error:
        if (failures := _failures.get()) is not None:
            where = _address(host, port)
            # Who cancels an attempt to connect has waited for long enough.
            cause = TimeoutError() if isinstance(error, asyncio.CancelledError) else error
            failures[where] = _explain(cause, where, options)
        raise


async def _bootstrap_or_explain(self: AIOKafkaClient) -> None:
    failures: dict[str, _Failure] = {}
    token = _failures.set(failures)
    try:
        await _bootstrap(self)
    except KafkaConnectionError as error:
        found = [failures.get(where) or _unanswered(where) for where in addresses(self)]
        raise UnreachableBrokersError(found) from error
    finally:
        _failures.reset(token)


async def _send_or_explain(
    self: AIOKafkaClient, node_id: Any, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT
) -> Any:
    failures: dict[str, _Failure] = {}
    token = _failures.set(failures)
    try:
        return await _send(self, node_id, request, group=group)
    except (NodeNotReadyError, asyncio.CancelledError) as error:
        for failure in failures.values():  # a request opens at most one connection
            unreachable = UnreachableNodeError(failure)
            setattr(self, _LATEST, unreachable)
            if isinstance(error, NodeNotReadyError):
                raise unreachable from error
        raise
    finally:
        _failures.reset(token)


def _unanswered(where: str) -> _Failure:
    """aiokafka only logs why. Apache Kafka, where it wants a login, closes a connection without one at this request."""
    return _Failure(f"{where} did not answer the metadata request", f"{CHECK_SERVERS}; {_CHECK_PROTOCOL}")


def _explain(error: OSError | KafkaError, where: str, options: dict[str, Any]) -> _Failure:
    login = f"SASL mechanism {options.get('sasl_mechanism')}"
    # A server that refuses a client's certificate says so only after the handshake.
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    if isinstance(cause, ssl.SSLError):
        return _Failure(describe_connection_error(cause, where), _CHECK_TLS)
    if isinstance(cause, ConnectionResetError) and options.get("ssl_context") is not None:
        return _Failure(f"{where} closed the connection during the TLS handshake", _CHECK_TLS)
    if isinstance(cause, TimeoutError):
        return _Failure(describe_connection_error(cause, where), check_silent(options.get("ssl_context")))
    if isinstance(cause, OSError):
        return _Failure(describe_connection_error(cause, where), CHECK_SERVERS)
    if isinstance(cause, SaslAuthenticationFailed):
        return _Failure(f"{where} refused the login ({login})", "check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
    if isinstance(cause, UnsupportedSaslMechanismError):
        return _Failure(f"{where} does not support {login}", "check KAFKA_SASL_MECHANISM")
    if isinstance(cause, IllegalSaslStateError):
        return _Failure(f"{where} expects no login", _CHECK_PROTOCOL)
    if isinstance(cause, KafkaConnectionError):
        return _closed(where)
    return _Failure(f"{where}: {type(cause).__name__}", _CHECK_PROTOCOL)


def _closed(where: str) -> _Failure:
    """The server is there.

    One that expects TLS, a certificate or a login often closes the connection without an error.
    """
    return _Failure(f"{where} closed the connection instead of answering", _CHECK_PROTOCOL)
