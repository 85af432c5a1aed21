"""`grok-insights audit`."""

from typing import Annotated

import typer
from rich.console import Console

from schemas.settings import load_settings
from streams.commands.output import print_json, run
from streams.kafka.clients import client_options
from streams.operations.audit.findings import Reconciliation
from streams.operations.audit.report import document, print_report
from streams.operations.audit.run import run_audit
from streams.telemetry.log import configure_logging
from streams.terminal import display_on_stderr


def audit(
    show: Annotated[int, typer.Option(min=0, max=10_000, help="Maximum number of faulty IDs to list.")] = 20,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on pending and unverifiable records too.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Maximum number of seconds to wait until no record is pending.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Check that every record of the topics has exactly one outcome, and every row, event and dead letter a record.

    A record is due once the workers have committed it; it then has a row and
    an event, or a dead letter. Lists faulty IDs with topic, partition and
    offset, never a text. Workers may keep running. Needs a temporary file of
    about 1 GB for a million records, in TMPDIR.

    Where retention removed records, a missing event or dead letter proves
    nothing: such records are unverifiable. Records that were removed before
    the workers read them are lost, and fail the audit.

    Exit code 0 if everything is reconciled, 1 if not.

    Settings: KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_*,
    KAFKA_SSL_*, TOPIC_PREFIX, CONSUMER_GROUP, DATABASE_URL, SECRETS_DIR.
    """
    settings = load_settings("kafka_bootstrap_servers", "database_url")
    assert settings.database_url is not None, "load_settings requires it"
    configure_logging("critical")
    options, database_url = client_options(settings), settings.database_url.get_secret_value()
    result = Reconciliation(settings.topics.inputs, show, strict=strict)
    with display_on_stderr() as display:
        run(run_audit(options, settings.topics, database_url, display, result, wait_s=wait))
    if as_json:
        print_json(document(result))
    else:
        print_report(result, Console())
    if result.problems:
        raise typer.Exit(1)
