"""`grok-insights worker`."""

from schemas.settings import load_settings
from streams.commands.output import run
from streams.telemetry.log import configure_logging
from streams.worker.main import run_worker


def worker() -> None:
    """Run one worker, which analyses conversations and writes their insights.

    SIGTERM and Ctrl-C stop it gracefully. Settings: KAFKA_*, TOPIC_PREFIX, CONSUMER_GROUP, DATABASE_URL, ANALYSER,
    XAI_API_KEY, GROK_*, MAX_IN_FLIGHT, WORKER_METRICS_PORT, DATA_DIR (one directory per worker).
    """
    settings = load_settings("kafka_bootstrap_servers", "database_url", needs_model=True)
    configure_logging(settings.log_level)
    run(run_worker(settings))
