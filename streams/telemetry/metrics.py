"""All Prometheus metrics of the service, and the observers that update those of calls, conversations and lag.

Labels take their values from closed sets. Other modules create no metrics.
"""

import asyncio
import collections
from collections.abc import Sequence
from functools import partial
from typing import Literal, assert_never

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from agents.analyser import NOTHING, ErrorClass
from agents.decode import Job
from schemas.conversation import Repairs
from schemas.insight import USD_TICKS, Usage
from schemas.outcome import Dead, Filtered, Outcome, OutcomeName, outcome_name
from streams.kafka.lag import LagSource

LAG_INTERVAL_S = 5.0

log = structlog.get_logger()

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
_counter = partial(Counter, registry=REGISTRY)
_gauge = partial(Gauge, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)

#: 0.01 s doubling to 81.92 s: the buckets of OpenTelemetry's gen_ai.client.operation.duration.
CALL_BUCKETS_S = tuple(0.01 * 2**n for n in range(14))
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# --- gateway ---
REQUESTS = _counter("requests_total", "HTTP requests, by route and status", ("route", "status"))
REQUEST_LATENCY_S = _histogram(
    "request_latency_seconds", "Duration of an HTTP request", ("route",), buckets=REQUEST_BUCKETS_S
)

# --- gateway and worker ---
CONVERSATIONS_REPAIRED = _counter(
    "conversations_repaired_total",
    "Conversations repaired so that they can be processed, by repair",
    ("repair",),
)

# --- Grok ---
GROK_CALLS = _counter("grok_calls_total", "Calls sent to the Grok API")
GROK_CALL_ERRORS = _counter("grok_call_errors_total", "Calls without a usable answer, by error class", ("class",))
GROK_CALL_LATENCY_S = _histogram(
    "grok_call_latency_seconds", "Duration of a call to the Grok API", buckets=CALL_BUCKETS_S
)
GROK_CALLS_AMBIGUOUS = _counter("grok_calls_ambiguous_total", "Calls whose reply was lost; they may have been billed")
GROK_CALLS_IN_FLIGHT = _gauge("grok_calls_in_flight", "Calls to the Grok API without a reply yet")
GROK_OLDEST_CALL_AGE_S = _gauge(
    "grok_oldest_call_age_seconds", "Age of the oldest call in flight; 0 when there is none"
)
ESTIMATED_TOKENS = _counter("estimated_tokens_total", "Tokens used, by kind (prompt or completion)", ("kind",))
ESTIMATED_COST_USD = _counter("estimated_cost_usd_total", "Cost of all calls in USD")
BREAKER_STATE = _gauge("breaker_state", "State of the circuit breaker: 0 closed, 1 half open, 2 open")

# --- worker ---
ANALYSIS_CACHE_HITS = _counter("analysis_cache_hits_total", "Conversations answered from the cache")
PREFILTER_SKIPS = _counter(
    "prefilter_skips_total", "Conversations filtered by the prefilter, by filter reason", ("reason",)
)
CONVERSATIONS = _counter("conversations_total", "Finished conversations, by outcome", ("outcome",))
CONVERSATIONS_IN_FLIGHT = _gauge("conversations_in_flight", "Conversations in flight")
RECORDS_HELD_BACK = _gauge(
    "records_held_back", "Records held back by unforeseen errors; no offset behind them is committed"
)
CONVERSATIONS_REHOMED = _counter("conversations_rehomed_total", "Records sent to the owner partition of their text")
DEAD_LETTERS = _counter("dead_letters_total", "Dead letters, by reason", ("reason",))
DEAD_LETTERS_STOPPED = _gauge("dead_letters_stopped", "1 when the dead-letter limit has halted the worker, else 0")
LAG_RECORDS = _gauge("conversations_lag_records", "Unfinished records by partition", ("partition",))
LAG_S = _gauge("conversations_lag_seconds", "Age of the oldest unfinished record")

_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
_PROMPT_TOKENS = ESTIMATED_TOKENS.labels("prompt")
_COMPLETION_TOKENS = ESTIMATED_TOKENS.labels("completion")


class CallMetrics:
    """See agents.analyser.CallObserver."""

    def call_succeeded(self, latency_s: float, usage: Usage) -> None:
        _count_call(latency_s, usage)

    def call_failed(
        self, error_class: ErrorClass, latency_s: float, *, ambiguous: bool, usage: Usage = NOTHING
    ) -> None:
        GROK_CALL_ERRORS.labels(error_class).inc()
        if error_class == "breaker_open":
            return  # nothing was sent
        _count_call(latency_s, usage)
        if ambiguous:
            GROK_CALLS_AMBIGUOUS.inc()

    def breaker_changed(self, state: Literal["closed", "half_open", "open"]) -> None:
        BREAKER_STATE.set(_BREAKER_STATES[state])


def _count_call(latency_s: float, usage: Usage) -> None:
    GROK_CALLS.inc()
    GROK_CALL_LATENCY_S.observe(latency_s)
    if usage.prompt_tokens or usage.completion_tokens:
        _PROMPT_TOKENS.inc(usage.prompt_tokens)
        _COMPLETION_TOKENS.inc(usage.completion_tokens)
        ESTIMATED_COST_USD.inc(usage.cost_usd_ticks / USD_TICKS)


def count_repairs(repairs: Repairs) -> None:
    """Counts one conversation: in the gateway when it is accepted, in the worker when it has its outcome."""
    for repair in repairs:
        CONVERSATIONS_REPAIRED.labels(repair).inc()


class OutcomeMetrics:
    """See agents.analyst.Observer; counts a batch at a time."""

    def ended(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.repairs:
                count_repairs(job.repairs)
        for (name, reason), count in collections.Counter(_labels(job.outcome) for job in jobs).items():
            CONVERSATIONS.labels(name).inc(count)
            match name:
                case "cached":
                    ANALYSIS_CACHE_HITS.inc(count)
                case "filtered":
                    PREFILTER_SKIPS.labels(reason).inc(count)
                case "dead":
                    DEAD_LETTERS.labels(reason).inc(count)
                case "analysed":
                    pass
                case _:
                    assert_never(name)

    def rehomed(self, count: int) -> None:
        CONVERSATIONS_REHOMED.inc(count)


def _labels(outcome: Outcome) -> tuple[OutcomeName, str]:
    return outcome_name(outcome), outcome.reason.value if isinstance(outcome, Filtered | Dead) else ""


class LagMetrics:
    """Exports the group's lag every LAG_INTERVAL_S seconds.

    A failed reading leaves the gauges unchanged. Every process exports the lag of the whole group: aggregate with max,
    not with sum.
    """

    def __init__(self, source: LagSource) -> None:
        self._source = source
        self._is_failing = False
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the loop, which reads at once."""
        self._loop = asyncio.create_task(self._run(), name="lag-metrics")

    async def stop(self) -> None:
        """Cancels the loop and a reading in progress."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                lag = await self._source.read()
                for partition, records in lag.records_by_partition.items():
                    LAG_RECORDS.labels(str(partition)).set(records)
                LAG_S.set(lag.seconds)
                self._is_failing = False
            except Exception as error:  # the edge of a loop: the next reading may succeed
                if not self._is_failing:
                    log.warning("lag_not_read", error=type(error).__name__)
                self._is_failing = True
            await asyncio.sleep(LAG_INTERVAL_S)


def exposition() -> bytes:
    """Returns all metrics in the Prometheus text format, version 0.0.4."""
    return generate_latest(REGISTRY)
