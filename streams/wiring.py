"""Builds the worker from Settings: the one place that names its concrete parts."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import cast

from faust.streams import Stream
from faust.types import StreamT

from agents.analyse import Recipe
from agents.analyser import Analyser
from agents.grok.client import GrokAnalyser
from agents.guards.breaker import CircuitBreaker
from agents.local import LocalAnalyser
from schemas.errors import Retryable
from schemas.settings import Settings
from schemas.topics import INPUT_TOPICS
from streams.kafka_client import client_options
from streams.pipeline.analyst_app import AnalystApp
from streams.pipeline.assignment import Assignment
from streams.pipeline.data_folder import WorkerFolder
from streams.pipeline.dead_letter_limit import DeadLetterLimit
from streams.pipeline.delivery import Delivery
from streams.pipeline.faust_options import faust_options
from streams.pipeline.home import Rehoming
from streams.pipeline.lag import LogLag
from streams.pipeline.limited_letters import CountedOutcomes, LimitedLetters
from streams.pipeline.log_reader import LogReader
from streams.pipeline.payment import until_may_pay
from streams.pipeline.pump import Pump
from streams.pipeline.steps import Steps
from streams.pipeline.table_cache import ShardCache
from streams.pipeline.worker import Part, Worker
from streams.sinks.dead_letters import DeadLetterSink
from streams.sinks.postgres import PostgresSink
from streams.sinks.producer import ConfirmedProducer
from streams.sinks.results import ResultsSink
from streams.telemetry import metrics
from streams.telemetry.health import Health
from streams.telemetry.lag_metrics import LagMetrics
from streams.telemetry.observers import CallMetrics, OutcomeMetrics
from streams.telemetry.server import MetricsServer


def build_worker(settings: Settings) -> AnalystApp:
    """A Faust app that is ready to be started, by `grok-insights worker` or by `faust -A streams.app worker`.

    Raises Fatal for settings that cannot be used. Nothing is connected yet.
    """
    assert settings.database_url is not None, "load_settings('database_url') sees to it"
    options = client_options(settings)
    producer, log_reader = ConfirmedProducer(options), LogReader(options)
    letters_producer = ConfirmedProducer(options, compression="gzip")
    rows = PostgresSink(settings.database_url.get_secret_value())
    assignment = Assignment()
    metrics.CONVERSATIONS_IN_FLIGHT.set_function(lambda: assignment.in_flight)

    async def may_pay() -> None:
        await until_may_pay(app.lease, assignment)

    async def partitions_assigned() -> None:
        if app.rebalancing or app.in_recovery or not app.has_been_assigned:
            raise Retryable("joining the group or restoring the answers table")

    async def not_halted() -> None:
        await worker.check_not_halted()

    health = Health(
        {
            "broker": log_reader.check,
            "database": rows.ping,
            "assignment": partitions_assigned,
            "dead_letters": not_halted,
        }
    )
    server = MetricsServer(settings.worker_metrics_host, settings.worker_metrics_port, health)
    analyser = build_analyser(settings, may_pay)
    folder = WorkerFolder(settings.data_dir)
    parts: list[Part] = [folder, server, log_reader, producer, letters_producer, rows, LagMetrics(LogLag(log_reader))]
    if isinstance(analyser, GrokAnalyser):
        parts.append(analyser)
    worker = Worker(parts, log_reader, assignment)
    app = AnalystApp(worker, **faust_options(settings))
    limit = DeadLetterLimit(worker.halt)
    letters = LimitedLetters(limit, DeadLetterSink(letters_producer))
    metrics.DEAD_LETTERS_STOPPED.set_function(lambda: limit.is_reached)

    def now() -> datetime:
        return datetime.now(UTC)

    steps = Steps(
        Recipe(analyser, timedelta(days=settings.cache_ttl_days), now),
        Delivery(rows, ResultsSink(producer), letters, analyser.version, now),
        Rehoming(producer, lambda: worker.partitions),
        lambda partition: ShardCache(app.answers.store, producer, partition),
        CountedOutcomes(limit, OutcomeMetrics()),
        worker.fail,
    )
    pump = Pump(
        assignment,
        log_reader,
        steps.handle,
        max_in_flight=settings.max_in_flight,
        generation=lambda: app.consumer_generation_id,
        is_assigned=lambda tp: tp in app.consumer.assignment(),
        seek=lambda tp, offset: app.consumer.seek(tp, offset),
        fail=worker.fail,
    )

    # Names are written out: Faust would derive them from the module's path, and moving a file would move data.
    @app.agent(app.topic(*INPUT_TOPICS, key_type=bytes, value_type=bytes), name="analyst")
    async def analyst(stream: StreamT[bytes]) -> None:
        await pump.run(cast(Stream[bytes], stream))

    return app


def build_analyser(settings: Settings, may_pay: Callable[[], Awaitable[None]]) -> Analyser:
    """Grok where the settings ask for it, else the local analyser, which is free and asks nobody."""
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
        may_pay=may_pay,
        max_connections=settings.max_in_flight,
        cost_per_1k_usd=settings.grok_cost_per_1k,
    )
