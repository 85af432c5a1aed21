"""Runs the demo: starts the stack, posts the sample, waits for every row, counts, and removes everything."""

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from streams.dev.demo.feeder import Feeder, Request, read_sample
from streams.dev.demo.figures import Example, Figures, compute_figures, pick_examples
from streams.dev.demo.results import InsightsTable, connected, count_calls, wait_for_rows
from streams.dev.local.ports import LOOPBACK, free_port
from streams.dev.local.process import ProcessLog, kill_watched_groups
from streams.dev.local.wiring import BrokerName, LocalStack, build_stack
from streams.terminal import Display

EXAMPLES = 5
Analyser = Literal["local", "standin", "grok"]


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    broker: BrokerName
    workers: int
    analyser: Analyser
    limit: int | None
    data_dir: Path


@dataclass
class Report:
    """The result of a run. `phases_s` are seconds by phase, `pids` those of the stack while it ran."""

    options: Options
    figures: Figures
    examples: Sequence[Example]
    busy_replies: int
    pids: dict[str, int]
    phases_s: dict[str, float] = field(default_factory=dict)


def run_demo(options: Options, display: Display) -> Report:
    """Raises Fatal when it fails, KeyboardInterrupt on Ctrl-C; leaves nothing running either way."""
    requests = read_sample(options.limit)
    phases = _Phases()
    log = ProcessLog(options.data_dir / "logs" / "demo.log")
    with _signals_as_interrupt(), _temporary_folder(options.data_dir / "demo") as folder:
        stack = _build_stack(options, folder, log, display)
        try:
            display.begin("starting", None)
            with phases.timed("start"):
                stack.start()
            display.done("starting")
            report = asyncio.run(_Run(options, requests, stack, display, phases).report())
        finally:
            with phases.timed("stop"):
                stack.stop()
    report.phases_s = phases.seconds
    return report


def _build_stack(options: Options, folder: Path, log: ProcessLog, display: Display) -> LocalStack:
    settings = {
        # With the stand-in, build_stack sets the workers' analyser.
        "ANALYSER": "grok" if options.analyser == "grok" else "local",
        "GATEWAY_HOST": LOOPBACK,
        "WORKER_METRICS_HOST": LOOPBACK,
        # One client posts everything, as fast as it can.
        "RATE_LIMIT_PER_MINUTE": "1000000",
    }
    return build_stack(
        options.broker,
        options.workers,
        free_port(),
        folder,
        settings,
        log,
        display.say,
        standin=options.analyser == "standin",
    )


@dataclass
class _Run:
    """One demo on a stack that has started."""

    options: Options
    requests: Sequence[Request]
    stack: LocalStack
    display: Display
    phases: "_Phases"
    accepted: int = 0

    async def report(self) -> Report:
        """Posts the conversations, waits for their rows and computes the figures."""
        stack, addresses = self.stack, self.stack.addresses
        pids = {service.name: service.pid for service in stack.services if service.pid and not service.is_one_shot}
        ids = [request.id for request in self.requests]
        feeder = Feeder(addresses.gateway_url, self._on_accepted)
        async with connected(addresses.database_url) as table:
            await self._post_and_wait(feeder, ids, table)
            calls = await count_calls(addresses.standin_url, addresses.worker_metrics_urls)
            figures = compute_figures(ids, await table.rows(), calls)
            examples = pick_examples(await table.insights(), EXAMPLES)
        return Report(self.options, figures, examples, feeder.busy_replies, pids)

    async def _post_and_wait(self, feeder: Feeder, ids: Sequence[str], table: InsightsTable) -> None:
        for step in ("posted", "ended"):
            self.display.begin(step, len(ids))
        began_s = time.monotonic()
        posting = asyncio.create_task(self._post(feeder), name="feeder")
        try:
            await wait_for_rows(ids, posting, table, self.stack, self.display)
            self.display.done("ended")
        finally:
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
        self.phases.seconds["analyse"] = time.monotonic() - began_s - self.phases.seconds["post"]

    async def _post(self, feeder: Feeder) -> None:
        with self.phases.timed("post"):
            await feeder.post_all(self.requests)
        self.display.done("posted")

    def _on_accepted(self) -> None:
        self.accepted += 1
        self.display.reached("posted", self.accepted)


class _Phases:
    """Seconds by phase, in the order in which the phases ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - began_s


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
