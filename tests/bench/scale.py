"""One and two workers on 8, 32 and 128 partitions. Workers are ready before the topic is filled."""

import asyncio
import time

from streams.terminal import Display
from tests.bench.drain import ProcessUse, rows_written, work_finished
from tests.bench.environment import Environment
from tests.bench.report import Figure, Report, ReportTable
from tests.bench.workload import Workload, produce

_WORKERS, _PARTITIONS = (1, 2), (8, 32, 128)


def scale(env: Environment, display: Display, workload: Workload) -> Report:
    """Not `ok` when rows are missing or a text was asked about twice."""
    rows: list[dict[str, Figure]] = []
    display.begin("runs", len(_WORKERS) * len(_PARTITIONS))
    for partitions in _PARTITIONS:
        for workers in _WORKERS:
            rows.append(asyncio.run(_run(env, workload, workers, partitions)))
            display.reached("runs", len(rows))
    display.done("runs")
    ok = all(row["lost"] == 0 and row["calls"] == row["distinct"] for row in rows)
    return Report("scale", [ReportTable("Workers and partitions, instant answers", rows)], ok)


async def _run(env: Environment, workload: Workload, workers: int, partitions: int) -> dict[str, Figure]:
    async with env.run(f"scale-{workers}-{partitions}", partitions) as run:
        began_s = time.monotonic()
        processes = [await asyncio.to_thread(run.service.start_worker, "worker-0")]
        start_s = time.monotonic() - began_s
        processes += [await asyncio.to_thread(run.service.start_worker, f"worker-{n}") for n in range(1, workers)]
        uses = [ProcessUse(process.process.pid) for process in processes]
        sampling = [asyncio.create_task(use.sample()) for use in uses]
        await produce(env.bootstrap_servers, workload.conversations(), "text")
        await rows_written(run, workload.records, *processes)
        await work_finished(run, workload.records)
        for task in sampling:
            task.cancel()
        committed_s = [row.committed_s for row in await run.committed_rows()]
        seconds = committed_s[-1] - committed_s[0]
        cpu_s = sum(use.cpu_between(committed_s[0], committed_s[-1]) for use in uses)
        return {
            "": f"{workers} worker{'s' if workers > 1 else ''}, {partitions} partitions",
            "conversations/s": len(committed_s) / seconds,
            "CPU us": 1e6 * cpu_s / len(committed_s),
            "peak RSS MiB a worker": max(max(use.rss_bytes) for use in uses) / 2**20,
            "start s": start_s,
            "calls": (await asyncio.to_thread(run.stats))["calls"],
            "distinct": workload.distinct,
            "lost": workload.records - len(committed_s),
        }
