"""`grok-insights gateway`."""

from schemas.settings import Settings, load_settings
from streams.commands.output import run
from streams.gateway.main import run_gateway
from streams.kafka.clients import client_options
from streams.kafka.lag import ConnectingLagReader
from streams.telemetry.log import configure_logging, service_log
from streams.telemetry.metrics import LagMetrics


def gateway() -> None:
    """Run the HTTP gateway, which accepts conversations and serves insights.

    SIGTERM and Ctrl-C stop it gracefully.

    Settings: KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_*,
    KAFKA_SSL_*, TOPIC_PREFIX, CONSUMER_GROUP, DATABASE_URL, GATEWAY_HOST,
    GATEWAY_PORT, ALLOW_ANONYMOUS, RATE_LIMIT_PER_MINUTE, LAG_SOFT_SECONDS,
    SECRETS_DIR, LOG_LEVEL.
    """
    with service_log():
        settings = load_settings("kafka_bootstrap_servers", "database_url")
        configure_logging(settings.log_level)
        run(_serve(settings))


async def _serve(settings: Settings) -> None:
    lag = ConnectingLagReader(client_options(settings), settings.topics)
    lag_metrics = LagMetrics(lag)
    await lag_metrics.start()
    try:
        await run_gateway(settings, lag)
    finally:
        await lag_metrics.stop()
        await lag.stop()
