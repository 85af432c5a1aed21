"""Runs the demo: starts the stack, posts the sample, waits for every row, counts, and removes everything."""

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp
import asyncpg
import orjson
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import Fatal
from streams.dev.demo.feeder import Feeder, read_sample
from streams.dev.demo.figures import Calls, Example, Figures, Row, compute_figures, pick_examples
from streams.dev.local.ports import LOOPBACK, free_port
from streams.dev.local.process import ProcessLog, kill_watched_groups
from streams.dev.local.stack import Stack
from streams.dev.local.wiring import BrokerName, LocalStack, build_stack
from streams.terminal import Display

EXAMPLES = 5
POLL_S = 0.1
#: The demo gives up after this long without a new row, once everything is posted: no slow machine takes that long.
STALLED_AFTER_S = 60.0
_SHOWN_IDS = 5

Analyser = Literal["local", "standin", "grok"]


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    broker: BrokerName
    workers: int
    analyser: Analyser
    limit: int | None
    data_dir: Path


@dataclass(frozen=True)
class Report:
    """The result of a run. `phases_s` are seconds by phase, `pids` those of the stack while it ran."""

    options: Options
    figures: Figures
    examples: Sequence[Example]
    busy_replies: int
    pids: dict[str, int]
    phases_s: dict[str, float]


#: Shows the result while the stack runs.
Keep = Callable[[Report, LocalStack], None]


def run_demo(options: Options, display: Display, keep: Keep | None = None) -> Report:
    """Raises Fatal when it fails, KeyboardInterrupt on Ctrl-C; leaves nothing running either way.

    `display` shows the progress, and after it the lines of the stop. With `keep`, calls it with the result, and then
    keeps the stack running until Ctrl-C, or until a service ends.
    """
    bodies = read_sample(options.limit)
    phases_s: dict[str, float] = {}
    log = ProcessLog(options.data_dir / "logs" / "demo.log")
    with _signals_as_interrupt(), _temporary_folder(options.data_dir / "demo") as folder:
        stack = _build_stack(options, folder, log, display)
        try:
            with display:
                display.begin("starting", None)
                with _timed("start", phases_s):
                    stack.start()
                display.done("starting")
                report = asyncio.run(_analyse(options, bodies, stack, display, phases_s))
            if keep is not None:
                keep(report, stack)
                with contextlib.suppress(KeyboardInterrupt):
                    stack.watch()
            return report
        finally:
            with _timed("stop", phases_s):
                stack.stop()


def _build_stack(options: Options, folder: Path, log: ProcessLog, display: Display) -> LocalStack:
    settings = {
        # With the stand-in, build_stack sets the workers' analyser.
        "ANALYSER": "grok" if options.analyser == "grok" else "local",
        "GATEWAY_HOST": LOOPBACK,
        "WORKER_METRICS_HOST": LOOPBACK,
        # One client posts everything, as fast as it can.
        "RATE_LIMIT_PER_MINUTE": "1000000",
    }
    standin = options.analyser == "standin"
    return build_stack(
        options.broker, options.workers, free_port(), folder, settings, log, display.say, standin=standin
    )


async def _analyse(
    options: Options, bodies: Mapping[str, bytes], stack: LocalStack, display: Display, phases_s: dict[str, float]
) -> Report:
    """Posts the conversations to the running stack, waits for their rows and computes the figures.

    The report refers to `phases_s`, which still gets the time of the stop.
    """
    addresses, ids = stack.addresses, list(bodies)
    pids = {service.name: service.pid for service in stack.services if service.pid and not service.is_one_shot}
    feeder = Feeder(addresses.gateway_url, lambda accepted: display.reached("posted", accepted))

    async def post() -> None:
        with _timed("post", phases_s):
            await feeder.post_all(bodies)
        display.done("posted")

    async with _connected(addresses.database_url) as table:
        for step in ("posted", "ended"):
            display.begin(step, len(ids))
        began_s = time.monotonic()
        posting = asyncio.create_task(post(), name="feeder")
        try:
            await wait_for_rows(ids, posting, table, stack, display)
            display.done("ended")
        finally:
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
        phases_s["analyse"] = time.monotonic() - began_s - phases_s["post"]
        calls = await _count_calls(addresses.standin_url, addresses.worker_metrics_urls)
        figures = compute_figures(ids, await table.rows(), calls, await table.cost_usd_ticks())
        examples = pick_examples(await table.insights(), EXAMPLES)
    return Report(options, figures, examples, feeder.busy_replies, pids, phases_s)


class InsightsTable:
    """The tables `insights` and `calls` of the demo's own database: every row in them is one of the demo's."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def count(self) -> int:
        return int(await self._connection.fetchval("SELECT count(*) FROM insights"))

    async def rows(self) -> list[Row]:
        query = """
            SELECT conversation_id, outcome, reason, received_at, analysed_at, text_key
            FROM insights
        """
        return [Row(*record) for record in await self._connection.fetch(query)]

    async def cost_usd_ticks(self) -> int:
        """Returns the cost of all calls, including those without a usable answer."""
        return int(await self._connection.fetchval("SELECT coalesce(sum(cost_usd_ticks), 0) FROM calls"))

    async def insights(self) -> list[Example]:
        """Returns those of analysed conversations."""
        query = """
            SELECT conversation_id AS id, source, sentiment, sentiment_score, urgency, topics, intent, summary
            FROM insights WHERE outcome = 'analysed'
        """
        return [Example(**record) for record in await self._connection.fetch(query)]

    async def missing(self, ids: Sequence[str]) -> list[str]:
        """Returns the ids without a row."""
        query = """
            SELECT id FROM unnest($1::text[]) AS id
            WHERE NOT EXISTS (SELECT FROM insights WHERE conversation_id = id)
        """
        return [record["id"] for record in await self._connection.fetch(query, ids)]


@contextlib.asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator[InsightsTable]:
    """Connects for as long as the block runs. Raises Fatal when the database does not answer."""
    try:
        connection = await asyncpg.connect(database_url, command_timeout=20)
        try:
            yield InsightsTable(connection)
        finally:
            await connection.close(timeout=2)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Fatal("the demo's database does not answer", str(error) or type(error).__name__) from error


async def wait_for_rows(
    ids: Sequence[str], posting: "asyncio.Task[None]", table: InsightsTable, stack: Stack, display: Display
) -> None:
    """Returns when every id has its row.

    Raises Fatal when `posting` fails, a process of the stack ends, or no new row comes for STALLED_AFTER_S.
    """
    rows, changed_at_s = 0, time.monotonic()
    while True:
        is_posted = posting.done()
        if is_posted:
            posting.result()
        before, rows = rows, await table.count()
        display.reached("ended", rows)
        if is_posted and rows >= len(ids):
            return
        if rows != before or not is_posted:
            changed_at_s = time.monotonic()
        elif time.monotonic() - changed_at_s > STALLED_AFTER_S:
            raise _stalled(len(ids), await table.missing(ids), stack)
        stack.check_running()
        await asyncio.sleep(POLL_S)


def _stalled(posted: int, missing: Sequence[str], stack: Stack) -> Fatal:
    shown = ", ".join(missing[:_SHOWN_IDS]) + (", ..." if len(missing) > _SHOWN_IDS else "")
    return Fatal(
        f"{len(missing)} of {posted} conversations have no row",
        f"no new row for {STALLED_AFTER_S:g} s; missing are {shown}",
        f"the log of all processes is {stack.log.path}",
    )


async def _count_calls(standin_url: str | None, metrics_urls: Sequence[str]) -> Calls:
    """Raises Fatal when one of them does not answer."""
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), raise_for_status=True) as session:
            expositions = [await _text_of(session, url) for url in metrics_urls]
            stats = await _text_of(session, f"{standin_url}/control/stats") if standin_url else None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Fatal("the calls could not be counted", str(error) or type(error).__name__) from error
    return Calls(orjson.loads(stats)["calls"] if stats else None, sum(map(calls_in, expositions)))


async def _text_of(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        return await response.text()


def calls_in(exposition: str) -> int:
    """Returns the calls in a worker's metrics, which are in Prometheus' text format."""
    families = text_string_to_metric_families(exposition)
    samples = (sample for family in families for sample in family.samples)
    return int(sum(sample.value for sample in samples if sample.name == "grok_calls_total"))


@contextlib.contextmanager
def _timed(phase: str, phases_s: dict[str, float]) -> Iterator[None]:
    began_s = time.monotonic()
    try:
        yield
    finally:
        phases_s[phase] = time.monotonic() - began_s


@contextlib.contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """Makes a folder for this run, and removes it together with any process that a second Ctrl-C left."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
            try:
                yield Path(folder)
            finally:
                kill_watched_groups()
    finally:
        # Another demo may be running in it.
        with contextlib.suppress(OSError):
            parent.rmdir()


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP act like Ctrl-C, and SIGINT too where a shell's background job ignores it."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT)) for number in numbers}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
