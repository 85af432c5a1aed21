"""Writes what calls, conversations and lag readings report to the metrics."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Literal, assert_never

import structlog

from agents.analyser import NOTHING, ErrorClass
from agents.decode import Job
from schemas.insight import USD_TICKS, Usage
from schemas.outcome import Dead, Filtered, OutcomeName, outcome_name
from streams.kafka.lag import Lag, LagSource
from streams.telemetry import metrics

LAG_INTERVAL_S = 5.0

_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
_PROMPT_TOKENS = metrics.ESTIMATED_TOKENS.labels("prompt")
_COMPLETION_TOKENS = metrics.ESTIMATED_TOKENS.labels("completion")

log = structlog.get_logger()


class CallMetrics:
    """See agents.analyser.CallObserver."""

    def call_succeeded(self, latency_s: float, usage: Usage) -> None:
        metrics.GROK_CALLS.inc()
        metrics.GROK_CALL_LATENCY_S.observe(latency_s)
        _count_usage(usage)

    def call_failed(
        self, error_class: ErrorClass, latency_s: float, *, ambiguous: bool, usage: Usage = NOTHING
    ) -> None:
        metrics.GROK_CALL_ERRORS.labels(error_class).inc()
        if error_class == "breaker_open":
            return  # nothing was sent
        metrics.GROK_CALLS.inc()
        metrics.GROK_CALL_LATENCY_S.observe(latency_s)
        _count_usage(usage)
        if ambiguous:
            metrics.GROK_CALLS_AMBIGUOUS.inc()

    def breaker_changed(self, state: Literal["closed", "half_open", "open"]) -> None:
        metrics.BREAKER_STATE.set(_BREAKER_STATES[state])


class OutcomeMetrics:
    """See agents.analyst.Observer; counts a batch at a time."""

    def ended(self, jobs: Sequence[Job]) -> None:
        for outcome, count in Counter(map(_labels, jobs)).items():
            _count_outcome(*outcome, count)

    def rehomed(self, count: int) -> None:
        metrics.CONVERSATIONS_REHOMED.inc(count)


class LagMetrics:
    """Exports the group's lag every LAG_INTERVAL_S seconds.

    A failed reading leaves the gauges unchanged. Every process exports the lag of the whole group: aggregate with max,
    not with sum.
    """

    def __init__(self, source: LagSource) -> None:
        self._source = source
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
                _set_lag(await self._source.read())
            except Exception as error:  # the edge of a loop: the next reading may succeed
                log.warning("lag_not_read", error=type(error).__name__)
            await asyncio.sleep(LAG_INTERVAL_S)


def _count_usage(usage: Usage) -> None:
    if usage.prompt_tokens or usage.completion_tokens:
        _PROMPT_TOKENS.inc(usage.prompt_tokens)
        _COMPLETION_TOKENS.inc(usage.completion_tokens)
        metrics.ESTIMATED_COST_USD.inc(usage.cost_usd_ticks / USD_TICKS)


def _labels(job: Job) -> tuple[OutcomeName, str]:
    outcome = job.outcome
    return outcome_name(outcome), outcome.reason.value if isinstance(outcome, Filtered | Dead) else ""


def _count_outcome(outcome: OutcomeName, reason: str, count: int) -> None:
    metrics.CONVERSATIONS.labels(outcome).inc(count)
    match outcome:
        case "cached":
            metrics.ANALYSIS_CACHE_HITS.inc(count)
        case "filtered":
            metrics.PREFILTER_SKIPS.labels(reason).inc(count)
        case "dead":
            metrics.DEAD_LETTERS.labels(reason).inc(count)
        case "analysed":
            pass
        case _:
            assert_never(outcome)


def _set_lag(lag: Lag) -> None:
    for partition, records in lag.records_by_partition.items():
        metrics.LAG_RECORDS.labels(str(partition)).set(records)
    metrics.LAG_S.set(lag.seconds)
