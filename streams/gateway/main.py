"""The gateway process: serves until a signal, then stops gracefully."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog
from aiohttp import web

from schemas.errors import Fatal
from schemas.settings import Settings
from streams.gateway.app import BROKER, DATABASE, DRAIN, LAG, build_application
from streams.gateway.insights import PostgresInsightReader
from streams.gateway.publisher import KafkaPublisher, new_producer
from streams.gateway.rate_limit import RateLimiter
from streams.gateway.routes import Dependencies
from streams.kafka.clients import client_options
from streams.kafka.lag import LagCheck, LagSource
from streams.stop_signal import end_process_within, set_at_first_stop_signal
from streams.telemetry.health import Health, listen

#: Time for requests in flight to finish. The steps that follow take up to 3 s more when the broker is frozen.
DRAIN_TIMEOUT_S = 5.0
STOP_WITHIN_S = 9.5
#: aiohttp waits this long twice: for responses being written, then for cancelled handlers.
CLOSE_TIMEOUT_S = 0.5

log = structlog.get_logger()


async def run_gateway(settings: Settings, lag: LagSource) -> None:
    """Serves until SIGTERM or SIGINT, then finishes requests in flight and returns within 10 s.

    A second signal ends the process at once; a stop that hangs ends it with exit code 1 (streams.stop_signal).
    Broker and Postgres may be down at the start. Raises Fatal when a setting is missing or the port is in use.
    """
    async with _dependencies(settings, lag) as dependencies, _serving(build_application(dependencies), settings):
        stop_signal = asyncio.Event()
        set_at_first_stop_signal(stop_signal)
        await stop_signal.wait()
        end_process_within(STOP_WITHIN_S)
        log.info("gateway_stopping")
    log.info("gateway_stopped")


@asynccontextmanager
async def _dependencies(settings: Settings, lag: LagSource) -> AsyncIterator[Dependencies]:
    async with _insight_reader(settings) as reader:
        publisher = KafkaPublisher(partial(new_producer, client_options(settings)), settings.topics.conversations)
        publisher.start()
        try:
            lag_check = LagCheck(lag)
            yield Dependencies(
                publisher=publisher,
                reader=reader,
                limiter=RateLimiter(settings.rate_limit_per_minute),
                health=Health({BROKER: publisher.check, DATABASE: reader.check, LAG: lag_check.check}),
                lag=lag_check,
                lag_soft_s=settings.lag_soft_seconds,
                clock=time.monotonic,
            )
        finally:
            await publisher.close()


@asynccontextmanager
async def _insight_reader(settings: Settings) -> AsyncIterator[PostgresInsightReader]:
    if settings.database_url is None:
        raise Fatal("no database is configured", "DATABASE_URL is empty", "set it to postgresql://...", exit_code=2)
    reader = PostgresInsightReader(settings.database_url.get_secret_value())
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


@asynccontextmanager
async def _serving(application: web.Application, settings: Settings) -> AsyncIterator[None]:
    # Compressed bodies are rejected, not decompressed.
    runner = web.AppRunner(application, access_log=None, auto_decompress=False, shutdown_timeout=CLOSE_TIMEOUT_S)
    await runner.setup()
    try:
        port = await listen(runner, settings.gateway_host, settings.gateway_port, "GATEWAY_PORT")
        log.info("gateway_listening", host=settings.gateway_host, port=port)
        yield
        for site in list(runner.sites):
            await site.stop()
        await application[DRAIN].finish(DRAIN_TIMEOUT_S)
    finally:
        await runner.cleanup()
