"""This worker beside a hand-written consumer, a Faust agent and FastStream, in rounds: A B C D, A B C D, ..."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

from streams.terminal import Display
from tests.bench.drain import CANDIDATES, HANDWRITTEN, Candidate, Drain, drain
from tests.bench.environment import INSTANT, Environment, Latency
from tests.bench.report import Bar, Figure, Report, ReportTable
from tests.bench.workload import Workload

#: What a call takes, and how many calls or conversations may be in flight.
LATENCIES: dict[Latency, int] = {INSTANT: 200, (0.3, 0.9): 1_000}


def compare(
    env: Environment, display: Display, workload: Workload, names: Sequence[str], rounds: int, latencies: list[Latency]
) -> Report:
    """Not `ok` when a candidate lost rows, or the worker called more than once for a text."""
    drains: list[Drain] = []
    display.begin("runs", rounds * len(latencies) * len(names))
    for number in range(rounds):
        for latency in latencies:
            for name in names:
                done = asyncio.run(drain(env, CANDIDATES[name], workload, latency, LATENCIES[latency]))
                drains.append(done)
                load = f"load average {os.getloadavg()[0]:.1f}"
                display.say(f"round {number + 1}, {_latency(latency)}, {_summary(done)}, {load}")
                display.reached("runs", len(drains))
    display.done("runs")
    return _report(drains, f"{rounds} rounds of {workload.records:,} conversations")


def _report(drains: list[Drain], scope: str) -> Report:
    tables, charts = [], {}
    for latency in dict.fromkeys(done.latency_s for done in drains):
        title = f"Conversations a second, {_latency(latency)}, {LATENCIES[latency]:,} in flight"
        by_name: defaultdict[str, list[Drain]] = defaultdict(list)
        for done in drains:
            if done.latency_s == latency:
                by_name[done.candidate].append(done)
        handwritten = by_name.get(HANDWRITTEN, [])
        tables.append(ReportTable(title, [_row(of_name, handwritten) for of_name in by_name.values()]))
        charts[title] = [_bar(CANDIDATES[name], of_name) for name, of_name in by_name.items()]
    return Report("compare", tables, all(done.is_as_promised for done in drains), charts, drains, scope=scope)


def _row(drains: list[Drain], handwritten: list[Drain]) -> dict[str, Figure]:
    """Medians; the ratio is the median of the ratios within each round, since a busy machine slows whole rounds."""
    ratios = [done.rate / other.rate for done, other in zip(drains, handwritten, strict=bool(handwritten))]
    calls, distinct = sum(done.calls for done in drains), sum(done.distinct for done in drains)
    return {
        "": CANDIDATES[drains[0].candidate].title,
        "conversations/s": median(done.rate for done in drains),
        "ratio": median(ratios) if ratios else "-",
        "CPU us": median(done.cpu_us for done in drains),
        "Kafka us": median(done.others.kafka_us for done in drains),
        "Postgres us": median(done.others.postgres_us for done in drains),
        "peak RSS MiB": median(done.rss_mb for done in drains),
        "calls": calls,
        "distinct": distinct,
        "calls/distinct": f"{calls / distinct:.4f}",
        "lost": sum(done.records - done.rows for done in drains),
    }


def _bar(candidate: Candidate, drains: Iterable[Drain]) -> Bar:
    return Bar(candidate.title, median(done.rate for done in drains), candidate.saves_calls)


def _summary(done: Drain) -> str:
    summary = f"{done.candidate}: {done.rate:,.0f}/s, {done.cpu_us:,.0f} us, {done.rss_mb:,.0f} MiB"
    if done.is_as_promised:
        return summary
    return (
        f"{summary}; not as promised: {done.rows} rows and {done.events} events of {done.records}, "
        f"{done.uncommitted} uncommitted, {done.calls} calls for {done.distinct} texts"
    )


def _latency(latency: Latency) -> str:
    return "instant answers" if latency == INSTANT else f"answers after {latency[0]:g}-{latency[1]:g} s"
