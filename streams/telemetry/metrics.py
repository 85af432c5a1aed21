"""Every metric of the service: name, labels, help. Only this module creates metrics; labels come from closed sets."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()

#: 0.01 s doubling to 81.92 s: the buckets of OpenTelemetry's gen_ai.client.operation.duration.
CALL_BUCKETS_S = tuple(0.01 * 2**n for n in range(14))
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# --- gateway ---
REQUESTS = Counter("requests_total", "HTTP requests answered", ("route", "status"), registry=REGISTRY)
REQUEST_LATENCY_S = Histogram(
    "request_latency_seconds",
    "Time to answer an HTTP request",
    ("route",),
    buckets=REQUEST_BUCKETS_S,
    registry=REGISTRY,
)

# --- the call ---
GROK_CALLS = Counter("grok_calls_total", "Calls sent to the provider", registry=REGISTRY)
GROK_CALL_ERRORS = Counter("grok_call_errors_total", "Calls without a usable answer", ("class",), registry=REGISTRY)
GROK_CALL_LATENCY_S = Histogram(
    "grok_call_latency_seconds", "Time from sending a call to its end", buckets=CALL_BUCKETS_S, registry=REGISTRY
)
GROK_CALLS_AMBIGUOUS = Counter(
    "grok_calls_ambiguous_total", "Calls whose reply was lost and that may have been billed", registry=REGISTRY
)
ESTIMATED_TOKENS = Counter(
    "estimated_tokens_total", "Tokens that answers took", ("kind",), registry=REGISTRY
)  # kind: prompt, completion
ESTIMATED_COST_USD = Counter("estimated_cost_usd_total", "Cost of the answers in USD", registry=REGISTRY)
BREAKER_STATE = Gauge("breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open", registry=REGISTRY)

# --- the pipeline ---
ANALYSIS_CACHE_HITS = Counter(
    "analysis_cache_hits_total", "Conversations served by the answer of an equal text", registry=REGISTRY
)
PREFILTER_SKIPS = Counter(
    "prefilter_skips_total", "Conversations ended by the prefilter", ("reason",), registry=REGISTRY
)
CONVERSATIONS = Counter("conversations_total", "Conversations ended, by outcome", ("outcome",), registry=REGISTRY)
CONVERSATIONS_IN_FLIGHT = Gauge("conversations_in_flight", "Conversations in work", registry=REGISTRY)
CONVERSATIONS_REHOMED = Counter(
    "conversations_rehomed_total", "Records sent on to the home partition of their text", registry=REGISTRY
)
DEAD_LETTERS = Counter("dead_letters_total", "Records set aside, by reason", ("reason",), registry=REGISTRY)
DEAD_LETTERS_STOPPED = Gauge(
    "dead_letters_stopped", "1 when so many records died that the worker takes no more", registry=REGISTRY
)
LAG_RECORDS = Gauge(
    "conversations_lag_records",
    "Records not yet finished, from the broker's offsets",
    ("partition",),
    registry=REGISTRY,
)
LAG_S = Gauge("conversations_lag_seconds", "Age of the oldest record not yet finished", registry=REGISTRY)


def exposition() -> bytes:
    """All metrics in Prometheus' text format, version 0.0.4."""
    return generate_latest(REGISTRY)
