"""The gateway's process: builds the parts from the settings, serves until it is told to stop, leaves in order."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from aiokafka import AIOKafkaProducer

from schemas.errors import Fatal
from schemas.settings import Settings
from streams.gateway.drain import DRAIN
from streams.gateway.limiter import RateLimiter
from streams.gateway.parts import Parts
from streams.gateway.publisher import KafkaPublisher
from streams.gateway.reader import PostgresReader, open_pool
from streams.gateway.server import BROKER, DATABASE, LAG, build_application
from streams.kafka.clients import client_options
from streams.kafka.lag import LagCheck, LagSource
from streams.stop_signal import end_process_within, set_at_first_stop_signal
from streams.telemetry.health import Health
from streams.telemetry.server import listen

#: Requests under way get this long to finish; with a broker that is frozen, all that follows takes 3 s more.
DRAIN_TIMEOUT_S = 5.0
STOP_WITHIN_S = 9.5
#: aiohttp waits twice as long: for answers being written, then for handlers that were cancelled.
CLOSE_TIMEOUT_S = 0.5
POOL_CLOSE_TIMEOUT_S = 1.0
#: Above our own limit for a conversation (512 KiB) with room for key and headers; Kafka's default maximum.
MAX_REQUEST_BYTES = 1024 * 1024
#: One batch a partition is under way at a time; a bigger one is what carries many clients at once.
MAX_BATCH_BYTES = 128 * 1024
LINGER_MS = 1
#: aiokafka's own 40 s would hold a connection to a frozen broker long after every client has its answer.
REQUEST_TIMEOUT_MS = 10_000

_log = structlog.get_logger()


async def run_gateway(settings: Settings, lag: LagSource) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is under way, within 10 s; a second signal ends the process at
    once. Should the stop itself hang, the process ends with 1; see streams.stop_signal.

    Broker and Postgres may be down at the start. Raises Fatal when a setting is missing or the port is taken.
    """
    async with _parts(settings, lag) as parts, _serving(build_application(parts), settings):
        told = asyncio.Event()
        set_at_first_stop_signal(told)
        await told.wait()
        end_process_within(STOP_WITHIN_S)
        _log.info("gateway_stopping")
    _log.info("gateway_stopped")


@asynccontextmanager
async def _parts(settings: Settings, lag: LagSource) -> AsyncIterator[Parts]:
    async with _publisher(settings) as publisher, _reader(settings) as reader:
        view = LagCheck(lag)
        yield Parts(
            publisher=publisher,
            reader=reader,
            limiter=RateLimiter(settings.rate_limit_per_minute),
            health=Health({BROKER: publisher.check, DATABASE: reader.check, LAG: view.check}),
            lag=view,
            lag_soft_s=settings.lag_soft_seconds,
            clock=time.monotonic,
        )


@asynccontextmanager
async def _publisher(settings: Settings) -> AsyncIterator[KafkaPublisher]:
    options = client_options(settings)

    def new_producer(is_idempotent: bool) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **options,
            client_id="grok-insights-gateway",
            acks="all",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            enable_idempotence=is_idempotent,
            linger_ms=LINGER_MS,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
        )

    publisher = KafkaPublisher(new_producer, settings.topics.conversations)
    publisher.start()
    try:
        yield publisher
    finally:
        await publisher.close()


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[PostgresReader]:
    if settings.database_url is None:
        raise Fatal("no database is set", "DATABASE_URL is empty", "set it to postgresql://...", exit_code=2)
    try:
        pool = await open_pool(settings.database_url.get_secret_value())
    except ValueError as error:
        raise Fatal("DATABASE_URL is no address of a database", hint="it starts with postgresql://") from error
    try:
        yield PostgresReader(pool)
    finally:
        try:
            await asyncio.wait_for(pool.close(), POOL_CLOSE_TIMEOUT_S)
        except TimeoutError:
            pool.terminate()


@asynccontextmanager
async def _serving(application: web.Application, settings: Settings) -> AsyncIterator[None]:
    runner = web.AppRunner(
        application,
        access_log=None,
        # Compressed bodies are refused, so nothing is ever unpacked.
        auto_decompress=False,
        shutdown_timeout=CLOSE_TIMEOUT_S,
    )
    await runner.setup()
    try:
        port = await listen(runner, settings.gateway_host, settings.gateway_port, "GATEWAY_PORT")
        _log.info("gateway_listening", host=settings.gateway_host, port=port)
        yield
        for site in list(runner.sites):
            await site.stop()
        await application[DRAIN].finish(DRAIN_TIMEOUT_S)
    finally:
        await runner.cleanup()
