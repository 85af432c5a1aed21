"""Makes the topics with their settings, and says which were there already and whether they fit."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import Fatal
from schemas.kafka import Topics

#: A dead letter carries a record of the broker's default largest size (1 MiB) plus our headers.
_DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024
#: Dead letters wait for people; a week, Kafka's default, is a holiday.
_DEAD_LETTER_RETENTION_MS = 90 * 24 * 3600 * 1000

DESCRIBE_ATTEMPTS = 50
DESCRIBE_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class MadeTopic:
    """One topic after `make_topics`; `partitions` is what it really has."""

    name: str
    partitions: int
    is_new: bool


async def make_topics(
    client_options: Mapping[str, Any], topics: Topics, partitions: int, replication_factor: int
) -> list[MadeTopic]:
    """Makes what is missing; running it again changes nothing.

    Raises Fatal when the broker refuses a topic, or an existing one has another number of partitions.
    """
    configs = topic_configs(topics)
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        new = await _create_missing(admin, configs, partitions, replication_factor)
        found = await _described(admin, list(configs))
    except KafkaError as error:
        hint = "check KAFKA_BOOTSTRAP_SERVERS and that the broker runs"
        raise Fatal("the broker cannot be used", f"{type(error).__name__}: {error}", hint) from error
    finally:
        await admin.close()
    made = [MadeTopic(name, found.get(name, 0), name in new) for name in configs]
    _check_partitions(made, partitions)
    return made


def topic_configs(topics: Topics) -> dict[str, dict[str, str]]:
    """Every topic with the settings in which it differs from the broker's defaults."""
    return {
        topics.conversations: {},
        topics.rehomed: {},
        topics.dead_letters: {
            "max.message.bytes": str(_DEAD_LETTER_MAX_BYTES),
            "retention.ms": str(_DEAD_LETTER_RETENTION_MS),
        },
        topics.insights: {},
        topics.answers_changelog: {"cleanup.policy": "compact"},
        topics.replay_ledger: {"cleanup.policy": "compact"},
    }


async def _create_missing(
    admin: AIOKafkaAdminClient, configs: Mapping[str, dict[str, str]], partitions: int, replication_factor: int
) -> set[str]:
    wanted = [NewTopic(name, partitions, replication_factor, topic_configs=config) for name, config in configs.items()]
    response = await admin.create_topics(wanted)
    new = set()
    for name, code, message, *_ in response.topic_errors:
        error = for_code(code)
        if code == 0:
            new.add(name)
        elif error is not TopicAlreadyExistsError:
            hint = "check TOPIC_PARTITIONS and TOPIC_REPLICATION_FACTOR"
            raise Fatal(f"the topic {name} cannot be made", f"{error.__name__}: {message or ''}", hint)
    return new


async def _described(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """Partitions of each topic. In a cluster, the broker that is asked may hear of new topics a moment later."""
    for _ in range(DESCRIBE_ATTEMPTS):
        found = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(names)}
        if all(found.get(name) for name in names):
            break
        await asyncio.sleep(DESCRIBE_PAUSE_S)
    return found


def _check_partitions(made: list[MadeTopic], partitions: int) -> None:
    other = [f"{topic.name} has {topic.partitions}" for topic in made if topic.partitions != partitions]
    if other:
        hint = "set TOPIC_PARTITIONS to what the topics have; all of them need the same number"
        raise Fatal(f"topics have not {partitions} partitions", ", ".join(other), hint)
