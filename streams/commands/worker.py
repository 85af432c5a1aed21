"""`grok-insights worker`."""

from typing import Annotated

import typer

from schemas.settings import load_settings
from streams.commands.output import run
from streams.telemetry.log import configure_logging, service_log
from streams.worker.main import run_worker


def worker(
    accept_dead_letters: Annotated[
        int,
        typer.Option(min=0, help="Number of dead letters to accept before DEAD_LETTER_LIMIT applies."),
    ] = 0,
) -> None:
    """Run one worker, which analyses conversations and writes their insights.

    Restart a worker that bad records have halted with --accept-dead-letters.
    SIGTERM and Ctrl-C stop it gracefully.

    Each worker needs a DATA_DIR of its own, and on one machine a
    WORKER_METRICS_PORT, too. Calls to Grok honour HTTPS_PROXY and NO_PROXY.

    Settings: KAFKA_*, TOPIC_PREFIX, CONSUMER_GROUP, DATABASE_URL, ANALYSER,
    XAI_API_KEY, GROK_BASE_URL, GROK_MODEL, GROK_TIMEOUT_S, GROK_COST_PER_1K,
    MAX_IN_FLIGHT, LINGER_MS, BREAKER_ERRORS, COOLDOWN_SECONDS, CACHE_TTL_DAYS,
    DEAD_LETTER_LIMIT, WORKER_METRICS_HOST, WORKER_METRICS_PORT, DATA_DIR,
    SECRETS_DIR, LOG_LEVEL.
    """
    with service_log():
        settings = load_settings("kafka_bootstrap_servers", "database_url", needs_model=True)
        configure_logging(settings.log_level)
        exit_code = run(run_worker(settings, accept_dead_letters))
    raise typer.Exit(exit_code)
