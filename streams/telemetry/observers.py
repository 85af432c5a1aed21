"""What calls and conversations tell, written into the metrics."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, assert_never

from agents.analyser import NOTHING, ErrorClass
from agents.decode import Job
from schemas.insight import USD_TICKS, Usage
from schemas.outcome import Dead, Filtered, OutcomeName, outcome_name
from streams.telemetry import metrics

_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


class CallMetrics:
    """See agents.analyser.CallObserver."""

    def call_succeeded(self, latency_s: float, usage: Usage) -> None:
        metrics.GROK_CALLS.inc()
        metrics.GROK_CALL_LATENCY_S.observe(latency_s)
        _show_usage(usage)

    def call_failed(
        self, error_class: ErrorClass, latency_s: float, *, ambiguous: bool, usage: Usage = NOTHING
    ) -> None:
        metrics.GROK_CALL_ERRORS.labels(error_class).inc()
        if error_class == "breaker_open":
            return  # nothing was sent
        metrics.GROK_CALLS.inc()
        metrics.GROK_CALL_LATENCY_S.observe(latency_s)
        _show_usage(usage)
        if ambiguous:
            metrics.GROK_CALLS_AMBIGUOUS.inc()

    def breaker_changed(self, state: Literal["closed", "half_open", "open"]) -> None:
        metrics.BREAKER_STATE.set(_BREAKER_STATES[state])


_PROMPT_TOKENS = metrics.ESTIMATED_TOKENS.labels("prompt")
_COMPLETION_TOKENS = metrics.ESTIMATED_TOKENS.labels("completion")


def _show_usage(usage: Usage) -> None:
    if usage.prompt_tokens or usage.completion_tokens:
        _PROMPT_TOKENS.inc(usage.prompt_tokens)
        _COMPLETION_TOKENS.inc(usage.completion_tokens)
        metrics.ESTIMATED_COST_USD.inc(usage.cost_usd_ticks / USD_TICKS)


class OutcomeMetrics:
    """See agents.analyst.Observer; counts a batch at a time."""

    def ended(self, jobs: Sequence[Job]) -> None:
        for outcome, count in Counter(map(_labels, jobs)).items():
            _count(*outcome, count)

    def rehomed(self, count: int) -> None:
        metrics.CONVERSATIONS_REHOMED.inc(count)


def _labels(job: Job) -> tuple[OutcomeName, str]:
    outcome = job.outcome
    return outcome_name(outcome), outcome.reason.value if isinstance(outcome, Filtered | Dead) else ""


def _count(outcome: OutcomeName, reason: str, count: int) -> None:
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
