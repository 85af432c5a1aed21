"""From POST to row at 10, 50 and 90 % of capacity: gateway, broker, worker and Postgres on one machine.

Capacity is what the worker writes while conversations are POSTed faster than that. A latency counts from when its
request was due to when its row was committed.
"""

import asyncio

from streams.terminal import Display
from tests.bench.drain import rows_written, work_finished
from tests.bench.environment import Environment, Latency, Run
from tests.bench.gateway import PATH, generate_load, is_accepting
from tests.bench.report import Figure, Report, ReportTable
from tests.bench.workload import Workload
from tests.support.processes import Process
from tests.support.waiting import wait_until

_SHARES = (0.1, 0.5, 0.9)


def latency(env: Environment, display: Display, seconds: float, probe_rate: float, answers: Latency) -> Report:
    """`probe_rate` must exceed the capacity. Not `ok` when a conversation has no row."""
    capacity, rows = asyncio.run(_measure(env, display, seconds, probe_rate, answers))
    table = ReportTable(f"POST to row, capacity {capacity:,.0f} conversations a second", rows)
    return Report("latency", [table], not any(row["lost"] for row in rows))


async def _measure(
    env: Environment, display: Display, seconds: float, probe_rate: float, answers: Latency
) -> tuple[float, list[dict[str, Figure]]]:
    async with env.run("latency", latency=answers) as run:
        run.service.settings |= {"RATE_LIMIT_PER_MINUTE": "1000000000", "MAX_IN_FLIGHT": "1000"}
        worker = await asyncio.to_thread(run.service.start_worker, "worker")
        await asyncio.to_thread(run.service.start_gateway)
        url = run.service.gateway_url + PATH
        await asyncio.to_thread(wait_until, lambda: is_accepting(url), timeout_s=30, what="the gateway accepts")
        display.say(f"measuring the capacity with {probe_rate:,.0f} POSTs/s")
        capacity = await _capacity(run, worker, url, probe_rate, seconds)
        runs = []
        for share in _SHARES:
            display.say(f"{share:.0%} of {capacity:,.0f} conversations/s")
            runs.append(await _at(run, worker, url, share, share * capacity, seconds))
        return capacity, runs


async def _capacity(run: Run, worker: Process, url: str, rate: float, seconds: float) -> float:
    """Rows a second in the second half of a run that is faster than the worker."""
    began_s = await _post(run, worker, url, "probe", rate, seconds)
    committed_s = [row.committed_s - began_s for row in await run.committed_rows()]
    return sum(seconds / 2 <= at_s < seconds for at_s in committed_s) / (seconds / 2)


async def _at(run: Run, worker: Process, url: str, share: float, rate: float, seconds: float) -> dict[str, Figure]:
    prefix = f"at-{share:.0%}"
    began_s = await _post(run, worker, url, prefix, rate, seconds)
    waited_ms = sorted(
        1000 * (row.committed_s - began_s - int(row.id.rpartition("-")[2]) / rate)
        for row in await run.committed_rows()
        if row.id.startswith(prefix)
    )
    quantiles = {f"p{round(100 * share)} ms": waited_ms[int(len(waited_ms) * share)] for share in (0.5, 0.95, 0.99)}
    lost = round(rate * seconds) - len(waited_ms)
    return {"": f"{share:.0%} of capacity", "POSTs/s": rate, **quantiles, "slowest ms": waited_ms[-1], "lost": lost}


async def _post(run: Run, worker: Process, url: str, prefix: str, rate: float, seconds: float) -> float:
    """When the first request was due; returns when all rows are there."""
    count, asked = round(rate * seconds), (await asyncio.to_thread(run.stats))["calls"]
    bodies = Workload(records=count, prefix=prefix, first_text=asked).bodies()
    (run.service.folder / "bodies").write_bytes(bodies)
    await run.rows.execute("TRUNCATE insights")
    load = await generate_load(run, url, "--rate", str(rate), "--seconds", str(seconds))
    await rows_written(run, count, worker)
    await work_finished(run, count)
    return load.began_s
