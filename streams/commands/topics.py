"""`grok-insights topics`."""

from dataclasses import asdict
from typing import Annotated

import typer

from schemas.settings import load_settings
from streams.commands.output import print_json, run
from streams.kafka.admin import create_topics
from streams.kafka.clients import client_options


def topics(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Create the missing topics; does nothing when all exist.

    Settings: KAFKA_*, TOPIC_PREFIX, CONSUMER_GROUP, TOPIC_PARTITIONS, TOPIC_REPLICATION_FACTOR.
    """
    settings = load_settings("kafka_bootstrap_servers")
    statuses = run(
        create_topics(
            client_options(settings),
            settings.topics,
            settings.topic_partitions,
            settings.topic_replication_factor,
        )
    )
    if as_json:
        print_json({"topics": [asdict(topic) for topic in statuses]})
        return
    for topic in statuses:
        typer.echo(f"{topic.name}\t{topic.partitions} partitions\t{'created' if topic.is_new else 'exists'}")
