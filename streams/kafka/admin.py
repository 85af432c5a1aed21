"""Creates the topics with their configuration, and checks that topics exist."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import Fatal
from schemas.kafka import Topics

#: A dead letter holds a record of up to 1 MiB, the broker's default limit, and our headers.
_DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024
#: Dead letters wait for an operator: Kafka's default of one week is shorter than a holiday.
_DEAD_LETTER_RETENTION_MS = 90 * 24 * 3600 * 1000

DESCRIBE_ATTEMPTS = 50
DESCRIBE_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """A topic after `create_topics`; `is_new` if that created it."""

    name: str
    partitions: int
    is_new: bool


async def create_topics(
    client_options: Mapping[str, Any], topics: Topics, partitions: int, replication_factor: int
) -> list[TopicStatus]:
    """Creates the missing topics. Changes nothing when all exist.

    Raises Fatal when the broker refuses a topic, or an existing topic has a different number of partitions.
    """
    configs = topic_configs(topics)
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        created = await _create_missing(admin, configs, partitions, replication_factor)
        counts = await _partition_counts(admin, list(configs))
    except KafkaError as error:
        hint = "check KAFKA_BOOTSTRAP_SERVERS and that the broker is running"
        raise Fatal("the broker cannot be used", f"{type(error).__name__}: {error}", hint) from error
    finally:
        await admin.close()
    statuses = [TopicStatus(name, counts.get(name, 0), name in created) for name in configs]
    _check_partitions(statuses, partitions)
    return statuses


def topic_configs(topics: Topics) -> dict[str, dict[str, str]]:
    """Returns every topic with the configuration that differs from the broker's defaults."""
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


async def check_topics(client_options: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Raises Fatal when a topic is missing, KafkaError when the broker does not answer.

    Lists all topics instead of describing the needed ones: a broker may create a topic that is asked for by name.
    """
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        missing = set(needed).difference(await admin.list_topics())
    finally:
        await admin.close()
    if missing:
        hint = "create them with `grok-insights topics`, or grant this user the right to describe them"
        raise Fatal("topics are missing", ", ".join(sorted(missing)), hint)


async def _create_missing(
    admin: AIOKafkaAdminClient, configs: Mapping[str, dict[str, str]], partitions: int, replication_factor: int
) -> set[str]:
    """Returns the names of the topics that did not exist before."""
    wanted = [NewTopic(name, partitions, replication_factor, topic_configs=config) for name, config in configs.items()]
    response = await admin.create_topics(wanted)
    created = set()
    for name, code, message, *_ in response.topic_errors:
        error = for_code(code)
        if code == 0:
            created.add(name)
        elif error is not TopicAlreadyExistsError:
            hint = "check TOPIC_PARTITIONS and TOPIC_REPLICATION_FACTOR"
            raise Fatal(f"the topic {name} cannot be created", f"{error.__name__}: {message or ''}", hint)
    return created


async def _partition_counts(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """Returns the partition count of each topic.

    Retries: the broker asked may learn of a new topic a moment later.
    """
    for _ in range(DESCRIBE_ATTEMPTS):
        counts = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(names)}
        if all(counts.get(name) for name in names):
            break
        await asyncio.sleep(DESCRIBE_PAUSE_S)
    return counts


def _check_partitions(statuses: list[TopicStatus], partitions: int) -> None:
    different = [f"{topic.name} has {topic.partitions}" for topic in statuses if topic.partitions != partitions]
    if different:
        hint = "set TOPIC_PARTITIONS to the number that the topics have; all topics need the same number"
        raise Fatal(f"topics do not have {partitions} partitions", ", ".join(different), hint)
