"""Creates the topics with their configuration, gives them more partitions, and checks what exists."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import Fatal
from schemas.kafka import Topics
from streams.kafka.clients import fatal_broker_error, never_create_topics
from streams.kafka.unreachable_brokers import check_silent

#: A dead letter holds a record of up to 1 MiB, the broker's default limit, and our headers.
_DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024
#: Dead letters wait for an operator: Kafka's default of one week is shorter than a holiday.
_DEAD_LETTER_RETENTION_MS = 90 * 24 * 3600 * 1000

CREATE_WITHIN_S = 30.0
DESCRIBE_ATTEMPTS = 50
DESCRIBE_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """A topic after `create_topics`.

    `is_new` if that created it, `grown_from` the number of partitions before, `notes` on its configuration.
    """

    name: str
    partitions: int
    is_new: bool
    grown_from: int | None = None
    notes: tuple[str, ...] = ()


async def create_topics(
    client_options: Mapping[str, Any], topics: Topics, partitions: int, replication_factor: int, *, grow: bool = False
) -> list[TopicStatus]:
    """Creates the missing topics. Changes nothing when all exist.

    `grow` gives every topic as many partitions as the one that has most, `partitions` at least. Nothing is changed
    unless the brokers would take all of it. Raises Fatal when they refuse a topic, or when an existing topic has a
    different number of partitions or a configuration that would lose records.
    """
    configs = topic_configs(topics)
    try:
        async with asyncio.timeout(CREATE_WITHIN_S), _admin(client_options) as admin:
            replicas = await _existing(admin, configs)
            before = {name: len(partition_replicas) for name, partition_replicas in replicas.items()}
            notes = await _check_configs(admin, {name: configs[name] for name in before})
            for name, partition_replicas in replicas.items():
                if (fewest := min(partition_replicas)) < replication_factor:
                    notes[name].append(f"has {fewest} replica(s), and TOPIC_REPLICATION_FACTOR is {replication_factor}")
            if grow:
                partitions = max([partitions, *before.values()])
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
        why = f"no answer from {client_options['bootstrap_servers']} within {CREATE_WITHIN_S:.0f} s"
        raise Fatal("the broker does not answer", why, check_silent(client_options.get("ssl_context"))) from error
    except KafkaError as error:
        raise fatal_broker_error(error) from error
    return [
        TopicStatus(
            name,
            counts.get(name, 0),
            is_new=name not in before,
            grown_from=before[name] if name in short else None,
            notes=tuple(notes.get(name, ())),
        )
        for name in configs
    ]


def topic_configs(topics: Topics) -> dict[str, dict[str, str]]:
    """Returns every topic with the configuration that the service needs, whatever the broker's defaults are.

    Records of equal texts have equal keys, so compaction would remove unread ones. What becomes of the insights is for
    their consumers to choose.
    """
    return {
        topics.conversations: {"cleanup.policy": "delete"},
        topics.rehomed: {"cleanup.policy": "delete"},
        topics.dead_letters: {
            "cleanup.policy": "delete",
            "max.message.bytes": str(_DEAD_LETTER_MAX_BYTES),
            "retention.ms": str(_DEAD_LETTER_RETENTION_MS),
        },
        topics.insights: {},
        topics.answers_changelog: {"cleanup.policy": "compact"},
        topics.replay_ledger: {"cleanup.policy": "compact"},
    }


async def check_topics(client_options: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Raises Fatal when a topic is missing, KafkaError when the broker does not answer."""
    async with _admin(client_options) as admin:
        await _check_exist(admin, set(needed))


async def check_configs(client_options: Mapping[str, Any], topics: Topics) -> list[str]:
    """Returns notes on the configuration of the topics.

    Raises Fatal for one that is missing or would lose records, KafkaError when the broker does not answer.
    """
    configs = topic_configs(topics)
    async with _admin(client_options) as admin:
        await _check_exist(admin, set(configs))
        notes = await _check_configs(admin, configs)
    return [f"{name} {note}" for name, topic_notes in notes.items() for note in topic_notes]


@asynccontextmanager
async def _admin(client_options: Mapping[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    never_create_topics()
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _check_exist(admin: AIOKafkaAdminClient, needed: set[str]) -> None:
    if missing := needed.difference(await _existing(admin, needed)):
        hint = "create them with `grok-insights topics`, or grant this user the right to describe them"
        raise Fatal("topics are missing", ", ".join(sorted(missing)), hint)


async def _existing(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, list[int]]:
    """Returns the number of replicas of each partition of the topics that exist."""
    found = await admin.describe_topics(list(names))
    return {
        topic["topic"]: [len(partition["replicas"]) for partition in topic["partitions"]]
        for topic in found
        if not topic["error_code"]
    }


async def _check_configs(admin: AIOKafkaAdminClient, wanted: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Returns notes by topic. Raises Fatal for a configuration that would lose records."""
    notes: dict[str, list[str]] = {name: [] for name in wanted}
    losses: list[str] = []
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name, config in wanted.items() if config]
    try:
        responses = await admin.describe_configs(resources) if resources else []
    except (IncompatibleBrokerVersion, NotImplementedError) as error:  # the broker knows no request of ours
        return {name: [f"does not show its configuration: {type(error).__name__}"] for name in wanted}
    for code, _, _, name, entries, *_ in (topic for response in responses for topic in response.resources):
        if code:
            notes[name].append(f"does not show its configuration: {for_code(code).__name__}")
            continue
        found = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        losses += [f"{name} {loss}" for loss in _losses(found, wanted[name])]
        notes[name] += _retention_notes(found, wanted[name])
    if losses:
        hint = "kafka-configs.sh --alter --entity-type topics --entity-name TOPIC --add-config OPTION=VALUE changes it"
        raise Fatal("topics would lose records or answers", "; ".join(losses), hint)
    return notes


def _losses(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Says what loses something. A server need not show every option, as Tansu does not."""
    losses = []
    if (policy := found.get("cleanup.policy", wanted["cleanup.policy"])) != wanted["cleanup.policy"]:
        losses.append(f"has cleanup.policy={policy}, not {wanted['cleanup.policy']}")
    if (least := wanted.get("max.message.bytes")) and int(found.get("max.message.bytes", least)) < int(least):
        losses.append(f"has max.message.bytes={found['max.message.bytes']}, less than {least}")
    return losses


def _retention_notes(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """How long dead letters are kept is for their operator to choose."""
    if (least := wanted.get("retention.ms")) and 0 <= int(found.get("retention.ms", least)) < int(least):
        return [f"has retention.ms={found['retention.ms']}, less than the recommended {least}"]
    return []


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
    except IncompatibleBrokerVersion as error:
        hint = "create the topics with as many partitions as are needed: TOPIC_PARTITIONS"
        raise Fatal("topics cannot be given more partitions", "this broker cannot add partitions", hint) from error
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
