"""`grok-insights demo`."""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from schemas.errors import Fatal
from schemas.settings import Settings, load_settings
from streams.commands.output import print_json, say
from streams.dev.demo.report import document, print_report
from streams.dev.demo.run import Analyser, Options, Report, run_demo
from streams.dev.local.ready import describe_stack, program_as_typed
from streams.dev.local.wiring import BrokerName, LocalStack
from streams.terminal import display_on_stderr


def demo(
    grok_standin: Annotated[
        bool, typer.Option("--grok-standin", help="Ask a stand-in for Grok, which counts the calls.")
    ] = False,
    broker: Annotated[BrokerName, typer.Option(help="Broker to start.")] = "tansu",
    workers: Annotated[int, typer.Option(min=1, max=16, help="Workers to start.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of conversations; all when unset.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stack running until Ctrl-C.")] = False,
) -> None:
    """Send real conversations through a temporary stack, and show that the figures add up.

    Starts broker, Postgres, gateway and workers on free ports with new data,
    and removes everything at the end. It costs nothing unless ANALYSER=grok
    is set. Exit code 1 when the figures do not add up.

    Settings: ANALYSER, GROK_*, XAI_API_KEY, DATA_DIR. All processes log to
    DATA_DIR/logs/demo.log.
    """
    settings = load_settings()
    options = Options(broker, workers, _analyser(settings, grok_standin), limit, settings.data_dir)

    def show_and_keep(report: Report, stack: LocalStack) -> None:
        _show(report, as_json)
        sys.stdout.flush()
        say(describe_stack(stack, settings.topics, options.analyser))

    report = run_demo(options, display_on_stderr(), show_and_keep if keep else None)
    if not keep:
        _show(report, as_json)
    if not report.figures.add_up:
        failed = [check.detail for check in report.figures.checks if not check.passed]
        raise Fatal("the figures of the demo do not add up", "; ".join(failed), "this is a bug: please report it")
    if not keep and not as_json:
        say(_next_step())


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(document(report))
    else:
        print_report(report, Console())


def _next_step() -> str:
    """Returns one line; `make` passes MAKELEVEL on to what it runs."""
    up = "make up" if "MAKELEVEL" in os.environ else f"{program_as_typed()} up"
    return f"\n  Next: {up} (with XAI_API_KEY and GROK_MODEL set, Grok answers); see docs/quick-start.md"


def _analyser(settings: Settings, grok_standin: bool) -> Analyser:
    """Returns Grok only if ANALYSER names it: a key alone does not mean that a demo may spend money."""
    if grok_standin:
        return "standin"
    return "grok" if settings.analyser == "grok" else "local"
