"""Creates the topics with their configuration, gives them more partitions, and checks that topics exist."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import Fatal
from schemas.kafka import Topics
from streams.kafka.clients import fatal_broker_error

#: A dead letter holds a record of up to 1 MiB, the broker's default limit, and our headers.
_DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024
#: Dead letters wait for an operator: Kafka's default of one week is shorter than a holiday.
_DEAD_LETTER_RETENTION_MS = 90 * 24 * 3600 * 1000

CREATE_WITHIN_S = 30.0
DESCRIBE_ATTEMPTS = 50
DESCRIBE_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """A topic after `create_topics`: `is_new` if that created it, `grown_from` the number of partitions before."""

    name: str
    partitions: int
    is_new: bool
    grown_from: int | None = None


async def create_topics(
    client_options: Mapping[str, Any], topics: Topics, partitions: int, replication_factor: int, *, grow: bool = False
) -> list[TopicStatus]:
    """Creates the missing topics. Changes nothing when all exist.

    `grow` gives every topic as many partitions as the one that has most, `partitions` at least. Nothing is changed
    unless the brokers would take all of it. Raises Fatal when they refuse a topic, or when an existing topic has a
    different number of partitions.
    """
    configs = topic_configs(topics)
    admin = AIOKafkaAdminClient(**client_options)
    try:
        async with asyncio.timeout(CREATE_WITHIN_S):
            await admin.start()
            before = await _existing(admin, configs)
            if grow:
                partitions = max(partitions, *before.values())
            else:
                _check_partitions(before, partitions)
            missing = [
                NewTopic(name, partitions, replication_factor, topic_configs=config)
                for name, config in configs.items()
                if name not in before
            ]
            short = {name: NewPartitions(partitions) for name, count in before.items() if count < partitions}
            for validate_only in (True, False):
                await _create(admin, missing, validate_only=validate_only)
                await _grow(admin, short, validate_only=validate_only)
            counts = await _partition_counts(admin, list(configs), partitions)
            _check_partitions(counts, partitions)
    except TimeoutError as error:
        hint = "check KAFKA_BOOTSTRAP_SERVERS and that the broker is running"
        why = f"no answer from {client_options['bootstrap_servers']} within {CREATE_WITHIN_S:.0f} s"
        raise Fatal("the broker does not answer", why, hint) from error
    except KafkaError as error:
        raise fatal_broker_error(error) from error
    finally:
        await admin.close()
    return [
        TopicStatus(name, counts.get(name, 0), name not in before, before[name] if name in short else None)
        for name in configs
    ]


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


async def _existing(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, int]:
    """Returns the partition count of each topic that exists; see `check_topics` for why all topics are listed."""
    existing = [name for name in await admin.list_topics() if name in names]
    found = await admin.describe_topics(existing) if existing else []
    return {topic["topic"]: len(topic["partitions"]) for topic in found}


async def _create(admin: AIOKafkaAdminClient, missing: list[NewTopic], *, validate_only: bool) -> None:
    if not missing:
        return
    response = await admin.create_topics(missing, validate_only=validate_only)
    for name, code, message, *_ in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # another process may create it at the same time
            hint = "check TOPIC_PARTITIONS and TOPIC_REPLICATION_FACTOR"
            raise Fatal(f"the topic {name} cannot be created", f"{error.__name__}: {message or ''}", hint)


async def _grow(admin: AIOKafkaAdminClient, short: dict[str, NewPartitions], *, validate_only: bool) -> None:
    if not short:
        return
    try:
        await admin.create_partitions(short, validate_only=validate_only)
    except KafkaError as error:
        hint = "grant this user the right to alter the topics, or check that enough brokers run"
        raise Fatal("topics cannot be given more partitions", f"{type(error).__name__}: {error}", hint) from error


async def _partition_counts(admin: AIOKafkaAdminClient, names: list[str], partitions: int) -> dict[str, int]:
    """Returns the partition count of each topic.

    Retries: the broker asked may learn of new topics and partitions a moment later.
    """
    for _ in range(DESCRIBE_ATTEMPTS):
        counts = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(names)}
        if all(counts.get(name) == partitions for name in names):
            break
        await asyncio.sleep(DESCRIBE_PAUSE_S)
    return counts


def _check_partitions(existing: Mapping[str, int], partitions: int) -> None:
    different = [f"{name} has {count}" for name, count in existing.items() if count != partitions]
    if different:
        counts = set(existing.values())
        agreed = f"set TOPIC_PARTITIONS={counts.pop()}, or " if len(counts) == 1 else ""
        hint = f"{agreed}give all topics the largest number: grok-insights topics --grow"
        raise Fatal(f"topics do not have {partitions} partitions", ", ".join(different), hint)
