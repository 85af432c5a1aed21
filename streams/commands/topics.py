"""`grok-insights topics`."""

from dataclasses import asdict
from typing import Annotated

import typer

from schemas.settings import load_settings
from streams.commands.output import print_json, run
from streams.kafka.admin import make_topics
from streams.kafka.clients import client_options


def topics(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
) -> None:
    """Make the topics that are missing; running it again changes nothing.

    Settings: KAFKA_*, TOPIC_PREFIX, CONSUMER_GROUP, TOPIC_PARTITIONS, TOPIC_REPLICATION_FACTOR.
    """
    settings = load_settings("kafka_bootstrap_servers")
    made = run(
        make_topics(
            client_options(settings),
            settings.topics,
            settings.topic_partitions,
            settings.topic_replication_factor,
        )
    )
    if as_json:
        print_json({"topics": [asdict(topic) for topic in made]})
        return
    for topic in made:
        typer.echo(f"{topic.name}\t{topic.partitions} partitions\t{'made' if topic.is_new else 'there already'}")
