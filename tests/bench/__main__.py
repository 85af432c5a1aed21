"""Measures this service on Apache Kafka and Postgres, and compares it with other ways to do the same work.

Scenarios: compare (the worker beside a hand-written consumer, Faust and FastStream), gateway (beside aiohttp and
FastAPI), scale (workers and partitions), latency (POST to row), rebalance, restart (with a large table), soak (memory),
capacity (a model, checked).

Exits with 1 when conversations were lost or a text was asked about twice. How it is measured: docs/performance.md.
"""

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from streams.terminal import Display, display_on_stderr
from tests.bench.capacity import capacity
from tests.bench.compare import LATENCIES, compare
from tests.bench.drain import CANDIDATES
from tests.bench.environment import INSTANT, Environment, Latency, environment
from tests.bench.gateway import gateway
from tests.bench.latency import latency
from tests.bench.rebalance import rebalance
from tests.bench.report import Report, print_report, write_docs, write_json
from tests.bench.restart import restart
from tests.bench.scale import scale
from tests.bench.soak import soak
from tests.bench.workload import Workload
from tests.support.servers import kafka_available

_ANSWERS: dict[str, Latency] = {"instant": INSTANT, "slow": (0.3, 0.9)}


def main() -> int:
    """The exit code."""
    arguments = _parser().parse_args()
    if (reason := kafka_available()) is not None:
        print(f"error: Apache Kafka cannot run here: {reason}", file=sys.stderr)
        return 1
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # topics come and go
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="grok-insights-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    display = display_on_stderr()
    with display:
        display.say(f"logs in {folder}")
        with environment(folder) as env:
            report = _run(arguments, env, display)
    print_report(report)
    if arguments.json is not None:
        write_json(report, arguments.json)
    if arguments.docs:
        write_docs(report)
    if arguments.folder is None and report.ok:
        shutil.rmtree(folder)
    return 0 if report.ok else 1


def _run(arguments: argparse.Namespace, env: Environment, display: Display) -> Report:
    workload = Workload(records=arguments.records, seed=arguments.seed)
    answers = _ANSWERS[arguments.answers or "instant"]
    match arguments.scenario:
        case "compare":
            latencies = [answers] if arguments.answers else list(LATENCIES)
            return compare(env, display, workload, arguments.only, arguments.rounds, latencies)
        case "gateway":
            return gateway(env, display, arguments.rounds)
        case "scale":
            return scale(env, display, workload)
        case "latency":
            return latency(env, display, arguments.seconds, arguments.rate or 4_000, answers)
        case "rebalance":
            return rebalance(env, display, arguments.rate or 200)
        case "capacity":
            return capacity(env, display, workload)
        case "restart":
            return restart(env, display, arguments.table)
        case _:
            return soak(env, display, arguments.minutes, arguments.rate or 200, answers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scenarios = ("compare", "gateway", "scale", "latency", "rebalance", "restart", "soak", "capacity")
    add = parser.add_argument
    add("scenario", nargs="?", default="compare", choices=scenarios, metavar="SCENARIO", help=", ".join(scenarios))
    add(
        "--only",
        nargs="+",
        default=list(CANDIDATES),
        choices=CANDIDATES,
        metavar="NAME",
        help=f"compare: {', '.join(CANDIDATES)}",
    )
    add("--rounds", type=int, default=3, help="compare, gateway: rounds; medians are shown")
    add("--records", type=int, default=20_000, help="compare, scale: conversations in a run")
    add("--seed", type=int, default=1, help="compare, scale: seed of the workload")
    add("--answers", choices=_ANSWERS, help="instant, or slow: after 0.3-0.9 s; compare runs both when unset")
    add("--rate", type=float, help="rebalance, soak: conversations a second (200); latency: more than capacity (4000)")
    add("--seconds", type=float, default=15, help="latency: seconds at each rate")
    add("--table", type=int, default=1_000_000, help="restart: answers in the table")
    add("--minutes", type=float, default=20, help="soak: duration in minutes")
    add("--json", type=Path, metavar="FILE", help="also write the results to this file")
    add("--docs", action="store_true", help="write table and chart into docs/performance.md")
    add("--folder", type=Path, help="folder for logs and data; a temporary one when unset")
    return parser


if __name__ == "__main__":
    sys.exit(main())
