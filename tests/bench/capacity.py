"""The cost of a conversation, a model of the capacity derived from it, and the model applied to 100,000 a second.

docs/capacity.md explains the model.
"""

import asyncio
from math import ceil

from streams.terminal import Display
from tests.bench.compare import LATENCIES
from tests.bench.drain import CANDIDATES, Drain, drain
from tests.bench.environment import INSTANT, Environment, Latency
from tests.bench.gateway import OURS, GatewayRun, under_load
from tests.bench.report import Figure, Report, ReportTable
from tests.bench.workload import Workload

_SLOW: Latency = (0.3, 0.9)
_RATES = (1_000, 10_000, 100_000)
#: Of a core: above it, queues grow faster than throughput.
_UTILISATION = 0.7
_REPLICAS = 3


def capacity(env: Environment, display: Display, workload: Workload) -> Report:
    """Not `ok` when the worker lost rows or asked twice."""
    worker = CANDIDATES["worker-text"]
    display.say("draining with slow answers, then with instant ones")
    slow, instant = (
        asyncio.run(drain(env, worker, workload, latency, LATENCIES[latency])) for latency in (_SLOW, INSTANT)
    )
    display.say("loading the gateway")
    gateway = asyncio.run(under_load(env, OURS))
    tables = [
        ReportTable("What one conversation costs", _costs(instant, slow, gateway)),
        ReportTable("The model against these runs", _check(instant, slow, gateway)),
        ReportTable("The model on paper", _on_paper(instant, slow, gateway)),
    ]
    return Report("capacity", tables, instant.is_as_promised and slow.is_as_promised, page="capacity.md")


def _costs(instant: Drain, slow: Drain, gateway: GatewayRun) -> list[dict[str, Figure]]:
    costs = {
        "gateway, CPU us": gateway.cpu_us,
        "worker, CPU us, instant answers": instant.cpu_us,
        "worker, CPU us, answers after 0.3-0.9 s": slow.cpu_us,
        "Kafka, CPU us": instant.others.kafka_us,
        "Postgres, CPU us": instant.others.postgres_us,
        "broker, bytes on each replica": instant.others.broker_bytes,
        "Postgres' log (WAL), bytes": instant.others.wal_bytes,
        "table and indexes, bytes": instant.others.table_bytes,
    }
    return [{"": name, "figure": cost} for name, cost in costs.items()]


def _check(instant: Drain, slow: Drain, gateway: GatewayRun) -> list[dict[str, Figure]]:
    """One process of each kind: a whole core, or as many calls as may be in flight."""
    by_calls = LATENCIES[_SLOW] / (sum(_SLOW) / 2) / _calls_of(slow)
    return [
        _checked("worker, instant answers", 1e6 / instant.cpu_us, instant.rate),
        _checked("worker, answers after 0.3-0.9 s", min(1e6 / slow.cpu_us, by_calls), slow.rate),
        _checked("gateway", 1e6 / gateway.cpu_us, gateway.load.rate),
    ]


def _checked(name: str, predicted: float, measured: float) -> dict[str, Figure]:
    return {"": name, "model, a second": predicted, "measured": measured, "measured/model": measured / predicted}


def _on_paper(instant: Drain, slow: Drain, gateway: GatewayRun) -> list[dict[str, Figure]]:
    """Broker and database at full load, where batches are as large as they will be."""
    others = instant.others
    workers = {rate: _cores(rate, slow.cpu_us) for rate in _RATES}
    in_flight = {rate: ceil(rate * _calls_of(slow) * sum(_SLOW) / 2) for rate in _RATES}
    figures: dict[str, dict[int, Figure]] = {
        "gateway processes": {rate: _cores(rate, gateway.cpu_us) for rate in _RATES},
        "worker processes": {rate: workers[rate] for rate in _RATES},
        "partitions, two for each worker": {rate: 2 * workers[rate] for rate in _RATES},
        "calls in flight": {rate: in_flight[rate] for rate in _RATES},
        "calls in flight in each worker": {rate: ceil(in_flight[rate] / workers[rate]) for rate in _RATES},
        "Kafka cores, all brokers": {rate: _cores(rate, _REPLICAS * others.kafka_us) for rate in _RATES},
        "Kafka MB/s, all brokers": {rate: _REPLICAS * rate * others.broker_bytes / 1e6 for rate in _RATES},
        "Postgres cores": {rate: _cores(rate, others.postgres_us) for rate in _RATES},
        "Postgres WAL MB/s": {rate: rate * others.wal_bytes / 1e6 for rate in _RATES},
        "table GB a day": {rate: rate * others.table_bytes * 86_400 / 1e9 for rate in _RATES},
    }
    return [{"": name, **{f"{rate:,}/s": by_rate[rate] for rate in _RATES}} for name, by_rate in figures.items()]


def _cores(rate: int, cpu_us: float) -> int:
    return ceil(rate * cpu_us / 1e6 / _UTILISATION)


def _calls_of(done: Drain) -> float:
    """Calls for one conversation."""
    return done.calls / done.records
