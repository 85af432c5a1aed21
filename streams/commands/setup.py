"""`grok-insights migrate | topics | schemas`: one-off commands that bring something up to date."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import Fatal
from schemas.export import generated_files
from schemas.settings import load_settings
from streams.commands.output import print_json, run
from streams.postgres.migrations import migrate_database

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def migrate(as_json: AsJson = False) -> None:
    """Migrate the database; does nothing when it is up to date.

    Settings: DATABASE_URL.
    """
    settings = load_settings("database_url")
    assert settings.database_url is not None, "load_settings requires it"
    lines = migrate_database(settings.database_url.get_secret_value())
    if as_json:
        print_json({"applied": [line.removeprefix("Applied: ").split()[0] for line in lines if "Applied" in line]})
        return
    typer.echo("\n".join(lines) or "up to date")


def topics(
    grow: Annotated[
        bool,
        typer.Option("--grow", help="Give all topics as many partitions as the largest has, or TOPIC_PARTITIONS."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create the missing topics; does nothing when all exist.

    Checks everything before it changes anything. More partitions give most texts
    another partition, without their cached answers: each is analysed once more.

    Settings: KAFKA_*, TOPIC_PREFIX, CONSUMER_GROUP, TOPIC_PARTITIONS, TOPIC_REPLICATION_FACTOR.
    """
    # Loading aiokafka takes 0.1 s, which the other commands need not wait for.
    from streams.kafka.admin import create_topics
    from streams.kafka.clients import client_options
    from streams.telemetry.log import configure_logging

    configure_logging("critical")  # the error says what aiokafka would log before it
    settings = load_settings("kafka_bootstrap_servers")
    options, replication = client_options(settings), settings.topic_replication_factor
    statuses = run(create_topics(options, settings.topics, settings.topic_partitions, replication, grow=grow))
    if as_json:
        print_json({"topics": [asdict(topic) for topic in statuses]})
        return
    for topic in statuses:
        state = "created" if topic.is_new else f"grown from {topic.grown_from}" if topic.grown_from else "exists"
        typer.echo(f"{topic.name}\t{topic.partitions} partitions\t{state}")
    for topic in statuses:
        for note in topic.notes:
            typer.echo(f"{topic.name} {note}", err=True)
    if statuses[0].partitions > settings.topic_partitions:
        typer.echo(f"set TOPIC_PARTITIONS={statuses[0].partitions}, the number that the topics have", err=True)


def schemas(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 if a file differs.")] = False,
    root: Annotated[Path, typer.Option(help="Root of the repository.")] = Path(),
) -> None:
    """Generate schemas/json/*.json and .env.example from the code."""
    files = {root / path: content for path, content in generated_files().items()}
    stale = [path for path, content in files.items() if not path.exists() or path.read_text() != content]
    if check and stale:
        names = ", ".join(str(path.relative_to(root)) for path in stale)
        raise Fatal("generated files are out of date", names, "run: grok-insights schemas")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
        typer.echo(f"wrote {path.relative_to(root)}")
