"""All Prometheus metrics of the service. Labels take their values from closed sets.

Other modules update these metrics and create none.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()

#: 0.01 s doubling to 81.92 s: the buckets of OpenTelemetry's gen_ai.client.operation.duration.
CALL_BUCKETS_S = tuple(0.01 * 2**n for n in range(14))
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# --- gateway ---
REQUESTS = Counter("requests_total", "HTTP requests, by route and status", ("route", "status"), registry=REGISTRY)
REQUEST_LATENCY_S = Histogram(
    "request_latency_seconds",
    "Duration of an HTTP request",
    ("route",),
    buckets=REQUEST_BUCKETS_S,
    registry=REGISTRY,
)

# --- Grok ---
GROK_CALLS = Counter("grok_calls_total", "Calls sent to the Grok API", registry=REGISTRY)
GROK_CALL_ERRORS = Counter(
    "grok_call_errors_total", "Calls without a usable answer, by error class", ("class",), registry=REGISTRY
)
GROK_CALL_LATENCY_S = Histogram(
    "grok_call_latency_seconds", "Duration of a call to the Grok API", buckets=CALL_BUCKETS_S, registry=REGISTRY
)
GROK_CALLS_AMBIGUOUS = Counter(
    "grok_calls_ambiguous_total", "Calls whose reply was lost; they may have been billed", registry=REGISTRY
)
ESTIMATED_TOKENS = Counter(
    "estimated_tokens_total", "Tokens used, by kind (prompt or completion)", ("kind",), registry=REGISTRY
)
ESTIMATED_COST_USD = Counter("estimated_cost_usd_total", "Cost of all calls in USD", registry=REGISTRY)
BREAKER_STATE = Gauge("breaker_state", "State of the circuit breaker: 0 closed, 1 half open, 2 open", registry=REGISTRY)

# --- worker ---
ANALYSIS_CACHE_HITS = Counter("analysis_cache_hits_total", "Conversations answered from the cache", registry=REGISTRY)
PREFILTER_SKIPS = Counter(
    "prefilter_skips_total", "Conversations filtered by the prefilter, by filter reason", ("reason",), registry=REGISTRY
)
CONVERSATIONS = Counter("conversations_total", "Finished conversations, by outcome", ("outcome",), registry=REGISTRY)
CONVERSATIONS_IN_FLIGHT = Gauge("conversations_in_flight", "Conversations in flight", registry=REGISTRY)
CONVERSATIONS_REHOMED = Counter(
    "conversations_rehomed_total", "Records sent to the owner partition of their text", registry=REGISTRY
)
DEAD_LETTERS = Counter("dead_letters_total", "Dead letters, by reason", ("reason",), registry=REGISTRY)
DEAD_LETTERS_STOPPED = Gauge(
    "dead_letters_stopped", "1 when the dead-letter limit stopped the worker, else 0", registry=REGISTRY
)
LAG_RECORDS = Gauge(
    "conversations_lag_records",
    "Unfinished records by partition",
    ("partition",),
    registry=REGISTRY,
)
LAG_S = Gauge("conversations_lag_seconds", "Age of the oldest unfinished record", registry=REGISTRY)


def exposition() -> bytes:
    """Returns all metrics in the Prometheus text format, version 0.0.4."""
    return generate_latest(REGISTRY)
