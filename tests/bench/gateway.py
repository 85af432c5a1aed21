"""POST /api/v1/conversations of this gateway, a bare aiohttp handler and FastAPI, under the same load generator."""

import asyncio
import sys
import time
import urllib.request
from statistics import median

import msgspec

from streams.terminal import Display
from tests.bench.drain import ProcessUse
from tests.bench.environment import Environment, Run
from tests.bench.load import LoadFigures
from tests.bench.report import Bar, Figure, Report, ReportTable
from tests.bench.workload import Workload
from tests.support.waiting import wait_until

PATH = "/api/v1/conversations"
_CONNECTIONS = 64
_WARM_UP_S, _MEASURED_S = 2.0, 8.0
OURS = "grok-insights gateway"
GATEWAYS = {
    OURS: "streams",
    "bare aiohttp handler": "tests.bench.candidates.bare_aiohttp",
    "FastAPI on uvicorn": "tests.bench.candidates.fastapi_app",
}


class GatewayRun(msgspec.Struct):
    """One gateway under load once."""

    gateway: str
    load: LoadFigures
    cpu_us: float
    rss_mb: float

    @property
    def refused(self) -> int:
        return self.load.answered - self.load.statuses.get(202, 0)


def gateway(env: Environment, display: Display, rounds: int) -> Report:
    """Not `ok` when a request was not answered with 202."""
    runs: list[GatewayRun] = []
    display.begin("runs", rounds * len(GATEWAYS))
    for _ in range(rounds):
        for name in GATEWAYS:
            runs.append(asyncio.run(under_load(env, name)))
            display.say(f"{name}: {runs[-1].load.rate:,.0f} requests/s, {runs[-1].cpu_us:,.0f} us")
            display.reached("runs", len(runs))
    display.done("runs")
    by_name = {name: [run for run in runs if run.gateway == name] for name in GATEWAYS}
    bare = by_name["bare aiohttp handler"]
    table = ReportTable("POST of one conversation, acks=all", [_row(of, bare) for of in by_name.values()])
    bars = [Bar(name, median(run.load.rate for run in of), name == OURS) for name, of in by_name.items()]
    return Report("gateway", [table], not any(run.refused for run in runs), {"Requests a second": bars}, runs)


async def under_load(
    env: Environment, name: str, *, warm_up_s: float = _WARM_UP_S, seconds: float = _MEASURED_S
) -> GatewayRun:
    """Starts the gateway, warms it up and measures it."""
    async with env.run(f"gateway-{GATEWAYS[name].rpartition('.')[2]}") as run:
        bodies = run.service.folder / "bodies"
        bodies.write_bytes(Workload(records=2_000).bodies())
        port = run.service.free_port()
        command = [sys.executable, "-m", GATEWAYS[name], *(["gateway"] if name == OURS else [])]
        settings = {"GATEWAY_PORT": str(port), "RATE_LIMIT_PER_MINUTE": "1000000000"}
        process = run.service.start_command("gateway", command, **settings)
        url = f"http://127.0.0.1:{port}{PATH}"
        await asyncio.to_thread(wait_until, lambda: is_accepting(url), timeout_s=30, what=f"{name} accepts")
        await generate_load(run, url, "--seconds", str(warm_up_s))
        use = ProcessUse(process.process.pid)
        sampling = asyncio.create_task(use.sample())
        load = await generate_load(run, url, "--seconds", str(seconds))
        sampling.cancel()
        cpu_s = use.cpu_between(load.began_s, min(time.time(), load.began_s + load.seconds))
        return GatewayRun(name, load, 1e6 * cpu_s / load.answered, max(use.rss_bytes) / 2**20)


async def generate_load(run: Run, url: str, *options: str) -> LoadFigures:
    """Runs the load generator as a process; the bodies are in the run's folder."""
    command = [sys.executable, "-m", "tests.bench.load", url, str(run.service.folder / "bodies"), *options]
    log = run.service.folder / "load.log"
    log.unlink(missing_ok=True)
    loading = run.service.start_command("load", [*command, "--connections", str(_CONNECTIONS)])
    if await asyncio.to_thread(loading.process.wait):
        raise RuntimeError(f"the load generator failed: {log.read_text()[-2000:]}")
    return msgspec.json.decode(log.read_bytes(), type=LoadFigures)


def is_accepting(url: str) -> bool:
    """Whether a first conversation is accepted."""
    body, headers = b'{"id": "first", "text": "is anyone there to help me?"}', {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310  loopback only
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            return bool(response.status == 202)
    except OSError:
        return False


def _row(runs: list[GatewayRun], bare: list[GatewayRun]) -> dict[str, Figure]:
    return {
        "": runs[0].gateway,
        "requests/s": median(run.load.rate for run in runs),
        "ratio": median(run.load.rate / other.load.rate for run, other in zip(runs, bare, strict=True)),
        "CPU us": median(run.cpu_us for run in runs),
        "p50 ms": median(run.load.p50_ms for run in runs),
        "p99 ms": median(run.load.p99_ms for run in runs),
        "peak RSS MiB": median(run.rss_mb for run in runs),
        "not 202": sum(run.refused for run in runs),
    }
