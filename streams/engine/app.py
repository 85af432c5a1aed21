"""WorkerApp: Faust joins the group, assigns partitions and restores the table; it never fetches the inputs."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import faust
from aiokafka import TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
)
from faust.app.base import BootStrategy
from faust.tables.manager import TableManager
from faust.types.auth import CredentialsT
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from schemas.errors import Fatal, Retryable
from schemas.kafka import Topics
from streams.engine.answers_table import AnswersTable, LogEnds, define_answers_table
from streams.engine.consumer import MemberConsumer
from streams.engine.membership import GroupLease
from streams.kafka.clients import describe_broker_error


class Lifecycle(Protocol):
    """The worker around Faust; see streams.worker.lifecycle."""

    halted: Fatal | None

    async def start(self) -> None:
        """Before the group is joined."""

    async def drain(self) -> None:
        """When the app begins to stop, while it is still a member of the group."""

    async def stop(self) -> None:
        """After the group was left."""

    def fail(self, error: BaseException) -> None:
        """Ends the worker."""


class _NoWeb(BootStrategy):
    """`faust worker` would switch the web server on whatever the app says: an open port with table data, for anyone."""

    enable_web = False


class _Tables(TableManager):
    """Starts at once: Faust sleeps for a second first, for tables that are defined late. Ours is defined by then."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class WorkerApp(faust.App):
    """One for a worker process."""

    BootStrategy = _NoWeb

    def __init__(self, life: Lifecycle, topics: Topics, log_ends: LogEnds, **options: Any) -> None:
        super().__init__(
            topics.consumer_group,
            autodiscover=False,
            store="rocksdb://",
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            # Off: a second set of offsets, a leader's own topic, and a check that ends the worker for a harmless
            # race of one record.
            stream_wait_empty=False,
            topic_disable_leader=True,
            recovery_consistency_check=False,
            table_standby_replicas=0,
            TableManager=_Tables,
            topic_allow_declare=False,  # `grok-insights topics` creates them, so workers need no right to
            stream_recovery_delay=0.1,
            **options,
        )
        self.inputs = frozenset(topics.inputs)
        self.log_ends = log_ends
        self.lease = GroupLease(options["broker_session_timeout"])
        self._life = life
        setattr(self.transport, "Consumer", MemberConsumer)  # noqa: B010  a class variable, set for this app alone
        self.answers: AnswersTable = define_answers_table(self, topics.answers_changelog, log_ends)
        # Subscribed, so that their partitions are assigned; nothing reads them through Faust.
        self.topics.add(self.topic(*topics.inputs, key_type=bytes, value_type=bytes))

    async def on_start(self) -> None:
        """Raises Fatal for what waiting cannot fix."""
        await self._life.start()
        await super().on_start()

    async def stop(self) -> None:
        """Ends the work first: once it is stopping, Faust answers a rebalance by closing the connection."""
        if not self.should_stop:
            await self._life.drain()
        await super().stop()

    async def on_stop(self) -> None:
        """Leaves the group, then stops everything around Faust, also when leaving fails."""
        try:
            await super().on_stop()
        finally:
            await self._life.stop()

    async def commit_as(self, generation: int, offsets: Mapping[TopicPartition, int]) -> bool:
        """See streams.engine.consumer.MemberThread.commit_as."""
        has_halted = self._life.halted is not None
        return await cast(MemberConsumer, self.consumer).commit_as(generation, offsets, has_halted=has_halted)

    def fail_to_join(self, error: KafkaError) -> None:
        """Ends the worker: the brokers refuse it as a member, and would again."""
        allowed = "group.min.session.timeout.ms (6 s by default) to group.max.session.timeout.ms of the brokers"
        hints = {
            InvalidSessionTimeoutError: f"set KAFKA_SESSION_TIMEOUT_S, which is {self.conf.broker_session_timeout:g}, "
            f"to a value from {allowed}",
            InconsistentGroupProtocolError: "another program uses this group: set CONSUMER_GROUP to another name",
            GroupAuthorizationFailedError: "grant this user the right to read with this group",
        }
        why = f"{self.conf.id}: {describe_broker_error(error)}"
        hint = hints.get(type(error), "the log of the brokers may say more")
        self._life.fail(Fatal("the brokers refuse this worker in its consumer group", why, hint))

    async def check_assigned(self) -> None:
        """A health check. Raises Retryable while the worker joins the group or restores its table."""
        was_assigned = cast(TableManager, self.tables).recovery.completed.is_set()
        if self.rebalancing or self.in_recovery or not was_assigned:
            raise Retryable("joining the group or restoring the answers table")

    @property
    def crash_event(self) -> asyncio.Event:
        """Set when Faust has given up; `crash_reason` says why."""
        return cast(asyncio.Event, self._crashed)

    @property
    def is_rebalancing_again(self) -> bool:
        """Whether another rebalance has come before the table of the last one was restored."""
        return cast(TableManager, self.tables).recovery.signal_recovery_start.is_set()


class InputChannel(faust.Channel[Any]):
    """The channel that feeds the analyst: one value is one fetch, and one queue serves every clone.

    Faust would give each clone a queue that `app.flow_control` empties at every resume, also at a second one: that is
    how records vanish after a recovery. A stream passes a value that is not a faust.Event unchanged and unacked.
    """

    @property
    def queue(self) -> ThrowableQueue[Any]:
        """The queue of the channel that was cloned."""
        root = cast(InputChannel, self._root or self)
        if root._queue is None:
            root._queue = ThrowableQueue(maxsize=1, flow_control=FlowControlEvent(initially_suspended=False))
        return root._queue

    async def put(self, value: Any) -> None:
        """Waits until the analyst has taken the fetch before."""
        await self.queue.put(value)


def faust_connection(client_options: Mapping[str, Any], topics: Topics, data_dir: Path) -> dict[str, Any]:
    """Keyword arguments of faust.App: brokers, credentials, data folder (created here). Raises Fatal.

    The folder is named after the changelog: with another one, its offsets would mean other answers.
    """
    tables = data_dir / "tables" / topics.answers_changelog
    try:
        tables.mkdir(parents=True, exist_ok=True)  # Faust itself creates only the last part of the path
    except OSError as error:
        hint = "set DATA_DIR to a folder that this user can write"
        raise Fatal(f"{tables} cannot be created", error.strerror or "", hint) from error
    servers: Iterable[str] = client_options["bootstrap_servers"].split(",")
    return {
        "broker": [f"kafka://{server.strip()}" for server in servers],
        "broker_credentials": _credentials(client_options),
        "datadir": tables,
    }


def _credentials(client_options: Mapping[str, Any]) -> CredentialsT | None:
    ssl_context = client_options.get("ssl_context")
    if "sasl_mechanism" in client_options:
        return faust.SASLCredentials(
            mechanism=client_options["sasl_mechanism"],
            username=client_options["sasl_plain_username"],
            password=client_options["sasl_plain_password"],
            ssl_context=ssl_context,
        )
    return faust.SSLCredentials(context=ssl_context) if ssl_context is not None else None
