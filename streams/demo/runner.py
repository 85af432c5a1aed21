"""The order of a demonstration: start the stack, post the sample, wait for every row, count, stop, leave nothing."""

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from streams.demo.calls import count_calls
from streams.demo.examples import Example, pick_examples
from streams.demo.feeder import Feeder
from streams.demo.figures import Figures, figures
from streams.demo.insights_table import InsightsTable, connected
from streams.demo.sample import Request, read_sample
from streams.demo.waiting import Waiting
from streams.local import guard
from streams.local.log_sink import LogSink
from streams.local.ports import LOOPBACK, free_port
from streams.local.up import Broker, LocalStack, build_stack
from streams.progress import Display

EXAMPLES = 5
Analyser = Literal["local", "standin", "grok"]


@dataclass(frozen=True)
class Options:
    """What the command was given."""

    broker: Broker
    workers: int
    analyser: Analyser
    limit: int | None
    data_dir: Path


@dataclass
class Report:
    """All that a run has to tell. `phases_s` are seconds by phase, `pids` those of the stack while it ran."""

    options: Options
    figures: Figures
    examples: Sequence[Example]
    put_off: int
    pids: dict[str, int]
    phases_s: dict[str, float] = field(default_factory=dict)


def run_demo(options: Options, display: Display) -> Report:
    """Raises Fatal when it cannot be carried through, KeyboardInterrupt on Ctrl-C; nothing is left running then."""
    requests = read_sample(options.limit)
    phases = _Phases()
    log = LogSink(options.data_dir / "logs" / "demo.log")
    with _signals_as_interrupt(), _folder(options.data_dir / "demo") as folder:
        stack = _stack(options, folder, log, display)
        try:
            display.begin("starting", None)
            with phases.timed("start"):
                stack.start()
            display.done("starting")
            report = asyncio.run(_carry_through(options, requests, stack, display, phases))
        finally:
            with phases.timed("stop"):
                stack.stop()
    report.phases_s = phases.seconds
    return report


def _stack(options: Options, folder: Path, log: LogSink, display: Display) -> LocalStack:
    settings = {
        # With a stand-in, build_stack tells the workers to ask it.
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


async def _carry_through(
    options: Options, requests: Sequence[Request], stack: LocalStack, display: Display, phases: "_Phases"
) -> Report:
    addresses = stack.addresses
    pids = {part.name: part.pid for part in stack.parts if part.pid is not None and not part.is_one_shot}
    async with connected(addresses.database_url) as table:
        put_off = await _post_and_wait(requests, addresses.gateway_url, table, stack, display, phases)
        calls = await count_calls(addresses.standin_url, addresses.worker_metrics_urls)
        return Report(
            options,
            figures([request.id for request in requests], await table.rows(), calls),
            pick_examples(await table.insights(), EXAMPLES),
            put_off,
            pids,
        )


async def _post_and_wait(
    requests: Sequence[Request],
    gateway_url: str,
    table: InsightsTable,
    stack: LocalStack,
    display: Display,
    phases: "_Phases",
) -> int:
    """Returns when each conversation has its row: how often the gateway asked to come back later."""
    accepted = 0

    def on_accepted() -> None:
        nonlocal accepted
        accepted += 1
        display.reached("posted", accepted)

    async def post() -> None:
        with phases.timed("post"):
            await feeder.post_all(requests)
        display.done("posted")

    feeder = Feeder(gateway_url, on_accepted)
    for step in ("posted", "ended"):
        display.begin(step, len(requests))
    began = time.monotonic()
    posting = asyncio.create_task(post(), name="feeder")
    try:
        await Waiting(stack, table, display, [request.id for request in requests]).until_all_ended(posting)
        display.done("ended")
    finally:
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
    phases.add("analyse", time.monotonic() - began - phases.seconds["post"])
    return feeder.put_off


class _Phases:
    """Seconds by phase, in the order in which they ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = seconds

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - began)


@contextlib.contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    """A folder of this run alone, gone at the end together with any process that a second Ctrl-C left."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
            try:
                yield Path(folder)
            finally:
                guard.OURS.close()
    finally:
        # Another demo may be running in it.
        with contextlib.suppress(OSError):
            parent.rmdir()


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, in order; also where a shell's background job ignores SIGINT."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT)) for number in numbers}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
