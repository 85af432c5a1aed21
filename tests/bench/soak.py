"""Memory of a worker over a long time: a steady feed of ever new texts."""

import asyncio
from statistics import median

from streams.terminal import Display
from tests.bench.drain import ProcessUse, rows_written, work_finished
from tests.bench.environment import Environment, Latency
from tests.bench.report import Figure, Report, ReportTable
from tests.bench.workload import Workload, feed

_SAMPLE_EVERY_S = 1.0
_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


def soak(env: Environment, display: Display, minutes: float, rate: float, answers: Latency) -> Report:
    """Not `ok` when a conversation has no row."""
    use, lost = asyncio.run(_measure(env, display, minutes, rate, answers))
    rows: list[dict[str, Figure]] = [
        {"": f"after {share * minutes:g} min", "RSS MiB": _rss_mb(use, share)} for share in _SHARES
    ]
    hours = (use.times_s[-1] - use.times_s[0]) / 3600
    growth_mb = (_rss_mb(use, 1.0) - _rss_mb(use, 0.5)) / (hours / 2)
    rows.append({"": "growth an hour, over the second half", "RSS MiB": growth_mb})
    title = f"One worker, {minutes:g} minutes at {rate:,.0f} conversations a second"
    return Report("soak", [ReportTable(title, rows)], lost == 0)


async def _measure(
    env: Environment, display: Display, minutes: float, rate: float, answers: Latency
) -> tuple[ProcessUse, int]:
    workload = Workload(records=round(minutes * 60 * rate))
    async with env.run("soak", latency=answers) as run:
        run.service.settings["MAX_IN_FLIGHT"] = "1000"
        worker = await asyncio.to_thread(run.service.start_worker, "worker")
        use = ProcessUse(worker.process.pid)
        sampling = asyncio.create_task(use.sample(_SAMPLE_EVERY_S))
        feeding = asyncio.create_task(feed(env.bootstrap_servers, workload.conversations(), rate))
        display.begin("conversations", workload.records)
        while not feeding.done():
            await asyncio.wait([feeding], timeout=5)
            display.reached("conversations", await run.count_rows())
        await feeding
        await rows_written(run, workload.records, worker)
        await work_finished(run, workload.records)
        display.done("conversations")
        sampling.cancel()
        return use, workload.records - await run.count_rows()


def _rss_mb(use: ProcessUse, share: float) -> float:
    """The median of the samples of the last tenth before that share of the time."""
    end = round(share * len(use.rss_bytes))
    return median(use.rss_bytes[max(0, end - len(use.rss_bytes) // 10 - 1) : end]) / 2**20
