"""`grok-insights worker`."""

from schemas.settings import load_settings
from streams.commands.output import run
from streams.telemetry.log import configure_logging
from streams.worker.main import run_worker


def worker() -> None:
    """Run one worker: takes conversations from the topics, analyses them and writes their insights.

    Stops in order on SIGTERM and Ctrl-C. Settings: KAFKA_*, TOPIC_PREFIX, CONSUMER_GROUP, DATABASE_URL, ANALYSER,
    GROK_*, MAX_IN_FLIGHT, WORKER_METRICS_PORT, DATA_DIR (one folder for each worker).
    """
    settings = load_settings("kafka_bootstrap_servers", "database_url")
    configure_logging(settings.log_level)
    run(run_worker(settings))
