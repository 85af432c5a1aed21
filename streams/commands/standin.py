"""`grok-insights standin`: a stand-in for the Grok API, for demonstrations and tests."""

import secrets
from pathlib import Path
from typing import Annotated

import msgspec
import orjson
import typer

from schemas.errors import Fatal
from streams.commands.output import run
from streams.dev.standin.faults import FaultKind, FaultPlan
from streams.dev.standin.server import StandinConfig, run_standin


def standin(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    latency_min_s: Annotated[float, typer.Option(help="Minimum latency in seconds.")] = 0.3,
    latency_max_s: Annotated[float, typer.Option(help="Maximum latency in seconds.")] = 0.9,
    api_key: Annotated[str | None, typer.Option(help="The only key to accept; any key when unset.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model that exists; repeatable; all exist when unset.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help=f"KIND=RATE, the share of calls that fail; repeatable. Kinds: {', '.join(FaultKind)}."),
    ] = None,
    hang_s: Annotated[
        float, typer.Option(help="Seconds for which a call hangs, unless the faults are replaced meanwhile.")
    ] = 120,
    retry_after_s: Annotated[int, typer.Option(help="Retry-After of http_429, in seconds.")] = 1,
    journal: Annotated[
        Path | None,
        typer.Option(help="File to append one JSON line to for each finished call."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of latency and faults; random when unset.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print address and seed as one line of JSON.")] = False,
) -> None:
    """Mock the Grok API: realistic latency, faults on request, and a record of every call."""
    chosen_seed = secrets.randbits(32) if seed is None else seed
    plan = {"rates": _rates(fault or []), "hang_s": hang_s, "retry_after_s": retry_after_s}
    try:
        faults = msgspec.convert(plan, FaultPlan)
        models = tuple(model or ())
        config = StandinConfig(latency_min_s, latency_max_s, api_key, models, faults, chosen_seed, journal)
    except (ValueError, msgspec.ValidationError) as error:
        raise typer.BadParameter(str(error)) from error

    def ready(address: str) -> None:
        base_url = f"{address}/v1"
        if json:
            typer.echo(orjson.dumps({"base_url": base_url, "address": address, "seed": chosen_seed}))
        else:
            typer.echo(f"stand-in for the Grok API at {base_url} (GROK_BASE_URL), seed {chosen_seed}; Ctrl-C stops it")

    try:
        run(run_standin(config, host, port, ready))
    except KeyboardInterrupt:
        return
    except OSError as error:
        raise Fatal(f"cannot listen on {host}:{port}", str(error), "choose another with --port, or 0") from error


def _rates(options: list[str]) -> dict[str, float]:
    rates = {}
    for option in options:
        kind, separator, rate = option.partition("=")
        try:
            rates[FaultKind(kind).value] = float(rate) if separator else 1.0
        except ValueError as error:
            raise typer.BadParameter(f"{option!r} is not KIND=RATE; kinds: {', '.join(FaultKind)}") from error
    return rates
