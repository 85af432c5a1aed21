"""Builds the worker from Settings: the one place that names its concrete parts."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from faust.streams import Stream
from faust.types import StreamT

from agents.analyse import Recipe
from agents.analyser import Analyser
from agents.grok.client import GrokAnalyser
from agents.guards.breaker import CircuitBreaker
from agents.local.analyser import LocalAnalyser
from schemas.settings import Settings
from streams.kafka_client import client_options
from streams.pipeline.analyst_app import AnalystApp
from streams.pipeline.assignment import Assignment
from streams.pipeline.data_folder import WorkerFolder
from streams.pipeline.dead_letter_limit import DeadLetterLimit
from streams.pipeline.delivery import Delivery
from streams.pipeline.faust_consumer import OwnOffsetsConsumer
from streams.pipeline.faust_options import faust_options
from streams.pipeline.home import Rehoming
from streams.pipeline.lag import LogLag
from streams.pipeline.limited_letters import CountedOutcomes, LimitedLetters
from streams.pipeline.log_reader import LogReader
from streams.pipeline.payment import until_may_pay
from streams.pipeline.pump import Pump
from streams.pipeline.reading import Reading
from streams.pipeline.silence_watch import SilenceWatch
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
    options, topics = client_options(settings), settings.topics
    log_reader, producer = LogReader(options, topics), ConfirmedProducer(options)
    letters_producer = ConfirmedProducer(options, compression="gzip")
    rows = PostgresSink(settings.database_url.get_secret_value())
    assignment = Assignment()
    # Worker and app are made of what asks them, once it runs.
    analyser = build_analyser(settings, lambda: until_may_pay(app.lease, assignment))
    health = Health(
        {
            "broker": log_reader.check,
            "database": rows.ping,
            "assignment": lambda: app.check_assigned(),
            "dead_letters": lambda: worker.check_not_halted(),
        }
    )
    parts: list[Part] = [
        WorkerFolder(settings.data_dir),
        MetricsServer(settings.worker_metrics_host, settings.worker_metrics_port, health),
        *(log_reader, producer, letters_producer, rows),
        LagMetrics(LogLag(log_reader, topics.inputs)),
        *([analyser] if isinstance(analyser, GrokAnalyser) else []),
    ]
    reading = Reading(
        assignment,
        log_reader,
        generation=lambda: app.consumer_generation_id,
        is_assigned=lambda tp: tp in app.consumer.assignment(),
        seek=lambda tp, offset: app.consumer.seek(tp, offset),
    )
    worker = Worker(parts, log_reader, topics, assignment, [lambda: silence.run(lambda: app.flowing_inputs)])
    limit = DeadLetterLimit(worker.halt)
    letters = LimitedLetters(limit, DeadLetterSink(letters_producer, topics.dead_letters))
    app = AnalystApp(worker, topics, **faust_options(settings))
    steps = Steps(
        Recipe(analyser, timedelta(days=settings.cache_ttl_days), _now),
        Delivery(rows, ResultsSink(producer, topics.insights), letters, analyser.version, _now),
        Rehoming(producer, topics.rehomed, lambda: worker.partitions),
        lambda partition: ShardCache(app.answers.store, producer, topics.answers_changelog, partition),
        CountedOutcomes(limit, OutcomeMetrics()),
        worker.fail,
    )
    pump = Pump(
        assignment, reading, steps.handle, topics.rehomed, max_in_flight=settings.max_in_flight, fail=worker.fail
    )
    _run_agent(app, pump, topics.inputs)
    silence = SilenceWatch(
        reading, log_reader, pump, lambda partitions: cast(OwnOffsetsConsumer, app.consumer).handed_out(partitions)
    )
    metrics.CONVERSATIONS_IN_FLIGHT.set_function(lambda: assignment.in_flight)
    metrics.DEAD_LETTERS_STOPPED.set_function(lambda: limit.is_reached)
    return app


def _run_agent(app: AnalystApp, pump: Pump, inputs: Sequence[str]) -> None:
    """Names are written out: Faust would derive them from the module's path, and moving a file would move data."""

    @app.agent(app.topic(*inputs, key_type=bytes, value_type=bytes), name="analyst")
    async def analyst(stream: StreamT[bytes]) -> None:
        await pump.run(cast(Stream[bytes], stream))


def _now() -> datetime:
    return datetime.now(UTC)


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
