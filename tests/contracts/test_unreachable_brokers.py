"""Brokers that cannot be used: each address is named, with the cause and the settings to check."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError

from schemas.settings import Settings
from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.ports import LOOPBACK, free_port
from streams.kafka.clients import client_options, describe_broker_error, fatal_broker_error
from streams.kafka.producer import START_TIMEOUT_S, ReconnectingProducer
from streams.kafka.unreachable_brokers import UnreachableBrokersError, UnreachableNodeError
from streams.operations.broker_errors import broker_errors_as_fatal
from tests.support.servers import (
    UNKNOWN_HOST,
    listening,
    running,
    silent_server,
    skip_unless_kafka,
    tansu_advertising,
    tls_server,
)
from tests.support.waiting import eventually

PASSWORD = "canary-of-a-password"
MAX_BYTES = 2**16
LOGIN = {"kafka_sasl_username": "user", "kafka_sasl_password": PASSWORD}


async def start(servers: str, *, timeout_ms: int = 10_000, **settings: Any) -> AIOKafkaAdminClient:
    """A started client with the options that all ours get."""
    options = client_options(Settings(kafka_bootstrap_servers=servers, **settings))
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=timeout_ms)
    try:
        await admin.start()
    except BaseException:
        await admin.close()
        raise
    return admin


async def failure(servers: str, **settings: Any) -> UnreachableBrokersError:
    """The error of a client that cannot start; it is also the error that aiokafka's callers expect."""
    with pytest.raises(KafkaConnectionError) as raised:
        await start(servers, **settings)
    error = raised.value
    assert isinstance(error, UnreachableBrokersError)
    assert describe_broker_error(error) == f"{error.why}; {error.hint}"
    assert PASSWORD not in f"{error} {error.hint}"
    return error


async def test_every_address_is_named_with_its_cause() -> None:
    """In a fixed order, since logs and health checks report a reason that changes."""
    closed = f"{LOOPBACK}:{free_port()}"
    for _ in range(5):
        error = await failure(f"{UNKNOWN_HOST}:9092,{closed}")
        refused, unknown = error.why.split("; ")
        assert refused == f"no connection to {closed}: Connection refused"
        assert unknown.startswith(f"unknown host {UNKNOWN_HOST}:9092: ")
        assert error.hint == "check KAFKA_BOOTSTRAP_SERVERS and that the broker runs"


async def test_a_server_that_never_answers() -> None:
    """As a frozen broker, or another program that waits for the client to speak its protocol."""
    async with listening(None) as address:
        error = await failure(address, timeout_ms=300)
    assert error.why == f"no answer from {address}"
    assert error.hint == "check KAFKA_BOOTSTRAP_SERVERS and that the broker runs"


async def test_a_server_that_never_answers_the_tls_handshake() -> None:
    """As a broker without TLS, which may wait for the rest of what it takes for a request."""
    async with listening(None) as address:
        error = await failure(address, timeout_ms=300, kafka_security_protocol="SSL")
    assert error.why == f"no answer from {address}"
    assert "or KAFKA_SECURITY_PROTOCOL" in error.hint


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_a_port_without_tls(answer: bytes) -> None:
    """Some answer in their own protocol, others, as Apache Kafka, close the connection."""
    async with listening(answer) as address:
        error = await failure(address, kafka_security_protocol="SSL")
    assert error.why in {
        f"TLS with {address} failed: that port does not speak TLS",
        f"{address} closed the connection during the TLS handshake",
    }
    assert "KAFKA_SECURITY_PROTOCOL" in error.hint


async def test_a_certificate_that_nothing_verifies(tmp_path: Path) -> None:
    """The hint names the setting for a certificate of one's own."""
    async with listening(b"", tls_server(tmp_path)) as address:
        error = await failure(address, kafka_security_protocol="SSL")
    assert error.why.startswith(f"the certificate of {address} cannot be verified: self")
    assert "KAFKA_SSL_CAFILE" in error.hint


async def test_a_server_that_wants_a_client_certificate(tmp_path: Path) -> None:
    """It says so only after the handshake, and may close the connection before that has arrived."""
    context = tls_server(tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "server.crt")
    async with listening(b"", context) as address:
        trusted = {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": tmp_path / "server.crt"}
        error = await failure(address, **trusted)
    assert error.why in {
        f"TLS with {address} failed: TLSV13_ALERT_CERTIFICATE_REQUIRED",
        f"{address} closed the connection instead of answering",
    }
    assert "KAFKA_SSL_CERTFILE" in error.hint


async def test_a_port_that_expects_tls(tmp_path: Path) -> None:
    """What a client without TLS sees of it is a connection that ends."""
    async with listening(b"", tls_server(tmp_path)) as address:
        error = await failure(address)
    assert error.why == f"{address} closed the connection instead of answering"
    assert error.hint.startswith("check KAFKA_SECURITY_PROTOCOL")


async def test_commands_show_the_cause_and_its_hint(tmp_path: Path) -> None:
    """As the error that ends them."""
    async with listening(b"", tls_server(tmp_path)) as address:
        with pytest.raises(Exception, match="the broker cannot be used") as raised:
            async with broker_errors_as_fatal():
                await start(address, kafka_security_protocol="SSL")
    assert "cannot be verified" in vars(raised.value)["why"]
    assert "KAFKA_SSL_CAFILE" in vars(raised.value)["hint"]


class WithLogin(Kafka):
    """Apache Kafka with a second listener, which wants a login."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.with_login = f"{LOOPBACK}:{free_port()}"
        module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        self.properties |= {
            "listeners": f"{self.properties['listeners']},SASL_PLAINTEXT://{self.with_login}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers},SASL_PLAINTEXT://{self.with_login}",
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT"
            ),
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{module} user_user="{PASSWORD}";',
        }


@pytest.fixture(scope="module")
def kafka() -> Iterator[WithLogin]:
    skip_unless_kafka()
    with running(WithLogin) as server:
        yield server


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("settings", "why", "hint"),
    [
        (
            {"kafka_sasl_password": "wrong"},
            "{} refused the login (SASL mechanism PLAIN)",
            "check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        ),
        (
            {"kafka_sasl_mechanism": "SCRAM-SHA-512"},
            "{} does not support SASL mechanism SCRAM-SHA-512",
            "check KAFKA_SASL_MECHANISM",
        ),
        (
            {"kafka_security_protocol": "PLAINTEXT"},
            "{} did not answer the metadata request",
            "check KAFKA_BOOTSTRAP_SERVERS and that the broker runs; check KAFKA_SECURITY_PROTOCOL: does that port",
        ),
    ],
    ids=["password", "mechanism", "no login"],
)
async def test_a_login_that_is_refused(kafka: WithLogin, settings: dict[str, str], why: str, hint: str) -> None:
    """The mechanism is named, the user and the password are not."""
    login = {"kafka_security_protocol": "SASL_PLAINTEXT", **LOGIN}
    await (await start(kafka.with_login, **login)).close()
    error = await failure(kafka.with_login, **login | settings)
    assert error.why == why.format(kafka.with_login)
    assert error.hint.startswith(hint)


@pytest.mark.kafka
async def test_a_login_where_none_is_expected(kafka: WithLogin) -> None:
    """The settings are for another port."""
    error = await failure(kafka.bootstrap_servers, kafka_security_protocol="SASL_PLAINTEXT", **LOGIN)
    assert error.why == f"{kafka.bootstrap_servers} expects no login"
    assert error.hint.startswith("check KAFKA_SECURITY_PROTOCOL")


async def test_an_address_that_only_the_brokers_know_is_named() -> None:
    """The bootstrap server answers; what it says about where the brokers are leads nowhere."""
    with running(tansu_advertising(f"{UNKNOWN_HOST}:9092")) as tansu:
        admin = await start(tansu.bootstrap_servers)
        try:
            with pytest.raises(NodeNotReadyError) as raised:
                await admin.list_topics()
        finally:
            await admin.close()
    error = raised.value
    assert isinstance(error, UnreachableNodeError)
    assert error.why.startswith(f"unknown host {UNKNOWN_HOST}:9092: ")
    assert error.why.endswith("; it is an address that the brokers advertise")
    assert "advertised.listeners" in error.hint
    assert describe_broker_error(error) == f"{error.why}; {error.hint}"
    fatal = fatal_broker_error(error)
    assert (fatal.why, fatal.hint) == (error.why, error.hint)


@pytest.mark.slow
@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_producer_names_the_address_that_the_brokers_advertise(*, is_silent: bool) -> None:
    """aiokafka retries until the time for the start is over, and raises nothing that would say why."""
    with silent_server() as silent_port:
        address = f"{LOOPBACK}:{silent_port if is_silent else free_port()}"
        with running(tansu_advertising(address)) as tansu:
            options = client_options(Settings(kafka_bootstrap_servers=tansu.bootstrap_servers))
            producer = ReconnectingProducer(lambda is_idempotent: _producer(options, is_idempotent=is_idempotent))

            async def has_failed() -> bool:
                return producer.failure != "not tried yet"

            producer.start()
            try:
                await eventually(has_failed, timeout_s=START_TIMEOUT_S + 10)
            finally:
                await producer.close()
    why = f"no answer from {address}" if is_silent else f"no connection to {address}: Connection refused"
    assert producer.failure.startswith(f"{why}; it is an address that the brokers advertise; ")


def _producer(options: dict[str, Any], *, is_idempotent: bool) -> AIOKafkaProducer:
    return AIOKafkaProducer(**options, enable_idempotence=is_idempotent)


async def test_a_server_that_ends_at_the_metadata_request(tansu: Tansu) -> None:
    """No cause is known then, so none is named."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection(LOOPBACK, tansu.port)
        broker_writer.write(await reader.read(MAX_BYTES))  # the request for the API's versions
        writer.write(await broker_reader.read(MAX_BYTES))
        await reader.read(MAX_BYTES)
        broker_writer.close()
        writer.close()

    async with await asyncio.start_server(serve, LOOPBACK, 0) as server:
        address = f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
        error = await failure(address)
    assert error.why == f"{address} did not answer the metadata request"
    assert error.hint.startswith("check KAFKA_BOOTSTRAP_SERVERS and that the broker runs; ")
