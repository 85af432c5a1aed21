"""`grok-insights audit`."""

from typing import Annotated

import typer
from rich.console import Console

from schemas.settings import load_settings
from streams.audit.report import document, print_report
from streams.audit.runner import run_audit
from streams.commands.output import print_json, run
from streams.kafka.clients import client_options
from streams.telemetry.log import configure_logging
from streams.terminal import display_on_stderr


def audit(
    show: Annotated[int, typer.Option(min=0, max=10_000, help="Name at most so many ids that are wrong.")] = 20,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count what is still pending, or cannot be checked, as wrong.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Wait first, at most so many seconds, until nothing is pending.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
) -> None:
    """Read the topics and the rows, and say whether the books balance: every record one end, nothing invented.

    A record is due once the workers have committed it; it then has a row
    with its event, or a dead letter. Names the ids that are wrong, and where
    they stand, never a text. Workers may run meanwhile. Takes a temporary
    file of about 1 GB for a million records, under TMPDIR.

    Where retention has removed records, an event or letter that is not there
    proves nothing: such records are counted as unchecked. Records that were
    removed before the workers read them are lost, and a fault.

    Exit code 0 when the books balance, 1 when not. Settings: KAFKA_*,
    TOPIC_PREFIX, CONSUMER_GROUP, DATABASE_URL.
    """
    settings = load_settings("kafka_bootstrap_servers", "database_url")
    assert settings.database_url is not None, "load_settings saw to it"
    configure_logging("critical")
    with display_on_stderr() as display:
        books = run(
            run_audit(
                client_options(settings),
                settings.topics,
                settings.database_url.get_secret_value(),
                display,
                show=show,
                strict=strict,
                wait_s=wait,
            )
        )
    if as_json:
        print_json(document(books))
    else:
        print_report(books, Console())
    if not books.balance:
        raise typer.Exit(1)
