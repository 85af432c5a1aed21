"""The worker, put together: its Faust app with the table `answers`, the channel and the agent `analyst`.

    reader -> channel -> agent analyst -> sinks        (streams.worker.intake, agents.analyst, streams.sinks)

`grok-insights worker` runs it, and so does `faust -A streams.app worker`.
"""

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from faust.types import StreamT

from agents.analyser import Analyser
from agents.analyst import Analyst, AnalystOptions, Sinks
from agents.grok.client import GrokAnalyser
from agents.limits.breaker import CircuitBreaker
from agents.local.analyser import LocalAnalyser
from schemas.errors import Fatal
from schemas.settings import Settings, load_settings
from streams.engine.answers_table import TableAnswers
from streams.engine.app import InputChannel, WorkerApp, faust_connection
from streams.kafka.clients import client_options
from streams.kafka.lag import LagReader
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.producer import ConfirmedProducer
from streams.sinks.dead_letters import DeadLetterSink
from streams.sinks.events import EventSink
from streams.sinks.rehomed import RehomedSink
from streams.sinks.rows import RowSink
from streams.telemetry import metrics
from streams.telemetry.health import Check, Health, MetricsServer
from streams.telemetry.log import configure_logging
from streams.telemetry.metrics import CallMetrics, LagMetrics, OutcomeMetrics
from streams.telemetry.work_log import WorkLog
from streams.worker.data_folder import WorkerFolder
from streams.worker.dead_letter_limit import DeadLetterLimit
from streams.worker.fencing import Fence
from streams.worker.intake import Fetch, Intake
from streams.worker.lifecycle import Lifecycle, Part
from streams.worker.provider_check import ProviderCheck
from streams.worker.rebalance import Rebalance
from streams.worker.timings import timings

#: Records open at once for each place for a call: cached and filtered ones pass by those that wait for an answer.
OPEN_RECORDS_PER_CALL = 2
#: With few places: what is written then still fills batches that are worth their cost.
MIN_OPEN_RECORDS = 1_024


def build_worker(settings: Settings, accept_dead_letters: int = 0) -> tuple[WorkerApp, Lifecycle]:
    """Nothing is connected yet. Raises Fatal for settings that cannot be used.

    The first `accept_dead_letters` dead letters do not count for the limit.
    """
    assert settings.database_url is not None, "load_settings('database_url') requires it"
    options, topics, times = client_options(settings), settings.topics, timings(settings)
    life = Lifecycle(times)
    offset_reader = OffsetReader(options, topics)
    app = WorkerApp(
        life,
        topics,
        offset_reader.end_offsets,
        broker_session_timeout=times.session_timeout_s,
        broker_heartbeat_interval=times.heartbeat_interval_s,
        broker_rebalance_timeout=times.rebalance_timeout_s,
        broker_request_timeout=times.request_timeout_s,
        consumer_metadata_max_age_ms=round(times.partitions_check_s * 1000),
        loglevel=settings.log_level,
        **faust_connection(options, topics, settings.data_dir),
    )

    producer, dead_letter_producer = ConfirmedProducer(options), ConfirmedProducer(options, compression="gzip")
    rows = RowSink(settings.database_url.get_secret_value())
    sinks = Sinks(
        rows=rows,
        events=EventSink(producer, topics.insights),
        rehomed=RehomedSink(producer, topics.rehomed),
        dead_letters=DeadLetterSink(dead_letter_producer, topics.dead_letters, _now),
    )
    fence = Fence(app.lease)
    analyser = build_analyser(settings, fence.wait_open)
    limit = DeadLetterLimit(life.halt, settings.dead_letter_limit, accept_dead_letters)
    analyst = Analyst(
        analyser,
        TableAnswers(app.answers, producer, topics.answers_changelog),
        sinks,
        limit,
        OutcomeMetrics(),
        life.fail,
        _now,
        AnalystOptions(
            max_calls=settings.max_in_flight,
            max_open_records=max(MIN_OPEN_RECORDS, settings.max_in_flight * OPEN_RECORDS_PER_CALL),
            cache_ttl=timedelta(days=settings.cache_ttl_days),
            linger_s=settings.linger_ms / 1000,
        ),
    )

    channel = InputChannel(app)
    intake = Intake(channel, analyst, offset_reader, options, topics, app.commit_as, life)
    rebalance = Rebalance(app, intake, analyst, fence, offset_reader, topics, life, times)

    # The name is written out: Faust would derive it from the module's path.
    @app.agent(channel, name="analyst")
    async def analyst_agent(fetches: StreamT[Fetch]) -> None:
        async for fetch in fetches:
            intake.process(fetch)

    ready_checks: dict[str, Check] = {
        "broker": offset_reader.check,
        "database": rows.ping,
        "assignment": app.check_assigned,
        "partitions": rebalance.check_partitions,
        "dead_letters": life.check_not_halted,
    }
    # Neither an outage of the provider nor a record that is held back makes a worker unready.
    other_checks: dict[str, Check] = {"held_back": analyst.check_none_held_back}
    provider_parts: list[Part] = []
    if isinstance(analyser, GrokAnalyser):
        grok = analyser
        provider_check = ProviderCheck(grok.check)
        provider_parts = [grok, provider_check]
        ready_checks["provider"] = provider_check.check_passed
        other_checks["provider_calls"] = grok.check_calls
        metrics.GROK_CALLS_IN_FLIGHT.set_function(lambda: grok.calls_in_flight)
        metrics.GROK_OLDEST_CALL_AGE_S.set_function(lambda: grok.oldest_call_age_s)
    health = Health(ready_checks | other_checks)
    life.parts = [
        WorkerFolder(settings.data_dir),
        MetricsServer(settings.worker_metrics_host, settings.worker_metrics_port, health, ready_checks),
        *(offset_reader, producer, dead_letter_producer, rows),
        *provider_parts,
        LagMetrics(LagReader(offset_reader, topics.inputs)),
        WorkLog(),
        analyst,
        rebalance,
    ]
    life.on_drain = rebalance.leave
    metrics.CONVERSATIONS_IN_FLIGHT.set_function(lambda: analyst.open_records)
    metrics.RECORDS_HELD_BACK.set_function(lambda: analyst.held_back_records)
    metrics.DEAD_LETTERS_STOPPED.set_function(lambda: limit.is_reached)
    return app, life


def build_analyser(settings: Settings, wait_allowed: Callable[[], Awaitable[None]]) -> Analyser:
    """Grok where the settings ask for it, else the local analyser, which is free and makes no calls."""
    if not settings.asks_grok:
        return LocalAnalyser()
    assert settings.xai_api_key is not None, "Settings.asks_grok needs a key"
    assert settings.grok_model is not None, "Settings refuses Grok without a model"
    return GrokAnalyser(
        base_url=settings.grok_base_url,
        api_key=settings.xai_api_key.get_secret_value(),
        model=settings.grok_model,
        timeout_s=settings.grok_timeout_s,
        breaker=CircuitBreaker(settings.breaker_errors, settings.cooldown_seconds),
        observer=CallMetrics(),
        wait_allowed=wait_allowed,
        max_connections=settings.max_in_flight,
        cost_per_1k_usd=settings.grok_cost_per_1k,
    )


def _now() -> datetime:
    return datetime.now(UTC)


def __getattr__(name: str) -> Any:
    """`faust -A streams.app` asks for `app`: the settings are read then, not when this module is imported."""
    if name != "app":
        raise AttributeError(name)
    try:
        settings = load_settings("kafka_bootstrap_servers", "database_url", needs_model=True)
        # Faust sets up logging of its own later; what keeps contents out of our events stays.
        configure_logging(settings.log_level)
        app = globals()["app"] = build_worker(settings)[0]
    except Fatal as error:
        sys.exit(f"{error.what}: {error.why}\nhint: {error.hint}")
    return app
