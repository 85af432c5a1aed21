"""When the work of an assignment begins, and in which order it ends."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NodeNotReadyError
from faust.types import TP
from structlog.testing import capture_logs

from agents.analyst import Analyst
from agents.limits.retry import NoLongerWanted
from schemas.errors import Fatal, Retryable
from streams.engine.app import WorkerApp
from streams.kafka.offset_reader import OffsetReader
from streams.worker import lifecycle
from streams.worker.fencing import Fence
from streams.worker.intake import Assignment, Intake
from streams.worker.lifecycle import Lifecycle
from streams.worker.rebalance import Rebalance, count_partitions
from streams.worker.timings import Timings
from tests.support.topics import TOPICS

ASSIGNED_TOPICS = (*TOPICS.inputs, TOPICS.answers_changelog)
ASSIGNED = [TP(topic, 3) for topic in ASSIGNED_TOPICS]
TIMES = Timings()


class FakeLog:
    """Every topic has eight partitions, unless `counts` says otherwise; raises the given error first."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.error: Exception | None = None

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        if self.error is not None:
            raise self.error
        return {topic: self.counts.get(topic, 8) for topic in topics}

    async def check(self) -> None: ...


class Work:
    """Acts as intake and analyst: records its calls; a commit may fail or hang."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.partitions = 0
        self.current: Assignment | None = None
        self.drain_s = 0.0
        self.is_shortened = asyncio.Event()
        self.commit_error: Exception | None = None
        self.commit_hangs = False

    def begin(self, partitions: Iterable[TopicPartition], generation: int) -> None:
        assert self.current is None
        self.current = Assignment(partitions, generation)
        self.journal.append(f"begin {[tp.partition for tp in partitions]} of {generation}")

    def end(self) -> Assignment | None:
        assignment, self.current = self.current, None
        if assignment is not None:
            self.journal.append("end")
        return assignment

    async def drain(self, within_s: float, keep_s: float) -> None:
        self.journal.append(f"drain {within_s:g} {keep_s:g}")
        with suppress(TimeoutError):
            async with asyncio.timeout(self.drain_s):
                await self.is_shortened.wait()

    def shorten_drain(self, keep_s: float) -> None:
        self.is_shortened.set()

    async def commit(self, assignment: Assignment) -> None:
        self.journal.append("commit")
        if self.commit_hangs:
            await asyncio.Event().wait()
        if self.commit_error is not None:
            raise self.commit_error

    async def keep_committing(self, interval_s: float) -> None: ...

    def forget(self) -> None:
        self.journal.append("forget")


class Rig:
    """A rebalance on Faust's own signals, which a test sends."""

    def __init__(self, folder: Path) -> None:
        self.life, self.log, self.work = Lifecycle(TIMES), FakeLog(), Work()
        self.app = WorkerApp(
            self.life,
            TOPICS,
            lambda partitions: asyncio.sleep(0, {}),
            broker=["kafka://127.0.0.1:1"],
            broker_session_timeout=10.0,
            datadir=folder,
        )
        self.app.lease.renew(time.monotonic())
        self.fence = Fence(self.app.lease)
        self.rebalance = Rebalance(
            self.app,
            cast(Intake, self.work),
            cast(Analyst, self.work),
            self.fence,
            cast(OffsetReader, self.log),
            TOPICS,
            self.life,
            TIMES,
        )

    async def assign(self, *partitions: TP, generation: int = 1) -> None:
        self.app.consumer_generation_id = generation
        await self.app.on_partitions_assigned.send(set(partitions))

    async def restored(self) -> None:
        await self.app.on_rebalance_complete.send()

    async def begin(self) -> None:
        await self.assign(*ASSIGNED)
        await self.restored()
        self.work.journal.clear()

    async def may_call(self) -> bool:
        try:
            await self.fence.wait_open()
        except NoLongerWanted:
            return False
        return True

    async def revoke(self) -> None:
        await self.app.on_partitions_revoked.send(set())


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(lifecycle, "end_process_within", lambda _: None)
    return Rig(tmp_path)


async def test_the_inputs_are_read_once_the_table_is_restored(rig: Rig) -> None:
    """Earlier, lookups would miss answers and pay for them again. Faust reads the changelogs."""
    rig.fence.close()
    await rig.assign(*ASSIGNED)
    assert rig.work.journal == []
    await rig.restored()
    assert rig.work.journal == ["begin [3, 3] of 1"]
    assert await rig.may_call()


async def test_a_worker_without_partitions_begins_nothing(rig: Rig) -> None:
    """There may be more workers than partitions."""
    await rig.assign()
    await rig.restored()
    assert rig.work.journal == []


async def test_a_table_that_is_restored_while_another_rebalance_begins_is_not_used(rig: Rig) -> None:
    """Faust sends its signal before it looks; the next assignment begins by itself."""
    await rig.assign(*ASSIGNED)
    rig.app.tables.recovery.signal_recovery_start.set()
    await rig.restored()
    rig.app.tables.recovery.signal_recovery_start.clear()
    await rig.assign(*ASSIGNED, generation=2)
    await rig.restored()
    assert rig.work.journal == ["begin [3, 3] of 2"]


async def test_a_table_restored_for_an_older_generation_is_not_used(rig: Rig) -> None:
    """Commits would be refused."""
    await rig.assign(*ASSIGNED)
    rig.app.consumer_generation_id = 2
    await rig.restored()
    assert rig.work.journal == []


async def test_an_assignment_revoked_before_its_table_is_restored_does_not_begin(rig: Rig) -> None:
    """And there is nothing to drain."""
    await rig.assign(*ASSIGNED)
    await rig.revoke()
    await rig.restored()
    assert rig.work.journal == []


async def test_an_assignment_ends_in_order(rig: Rig) -> None:
    """No new record or call starts, those in flight get a bounded time, then comes the last commit; only after that are
    trackers revoked."""
    await rig.begin()
    assignment = rig.work.current
    await rig.revoke()
    assert rig.work.journal == ["end", f"drain {TIMES.drain_s:g} {TIMES.keep_s:g}", "commit", "forget"]
    assert not await rig.may_call()
    assert assignment is not None
    assert not assignment.is_open


async def test_a_broker_that_does_not_answer_the_last_commit_is_given_up(rig: Rig) -> None:
    """The group would wait for us; the records are read again."""
    await rig.begin()
    rig.work.commit_hangs = True
    await rig.revoke()
    assert rig.work.journal[-2:] == ["commit", "forget"]
    assert asyncio.get_running_loop().time() == TIMES.last_commit_s


async def test_a_commit_that_fails_leaves_nothing_behind(rig: Rig) -> None:
    """Late work must not reach the next assignment."""
    await rig.begin()
    assignment = rig.work.current
    rig.work.commit_error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await rig.rebalance.leave()
    assert (rig.work.journal[-1], assignment.is_open if assignment else None) == ("forget", False)


async def test_a_reader_that_does_not_end_is_not_waited_for(rig: Rig) -> None:
    """Its broker may be frozen."""
    await rig.begin()
    assert rig.work.current is not None
    reader = rig.work.current.reader = asyncio.create_task(asyncio.Event().wait())  # type: ignore[assignment]
    await rig.revoke()
    assert asyncio.get_running_loop().time() == pytest.approx(TIMES.reader_stop_s)
    reader.cancel()


async def test_a_stop_ends_the_work_for_good(rig: Rig) -> None:
    """Calls get the stop's own time; a later assignment does not begin."""
    await rig.begin()
    await rig.rebalance.leave()
    await rig.rebalance.leave()
    await rig.assign(*ASSIGNED, generation=2)
    await rig.restored()
    assert rig.work.journal == ["end", f"drain {TIMES.stop_drain_s:g} {TIMES.keep_s:g}", "commit", "forget"]


async def test_a_revocation_during_a_stop_waits_for_the_same_drain(rig: Rig) -> None:
    """The group may hand the partitions on as soon as it returns."""
    await rig.begin()
    rig.work.drain_s = 3
    leaving = asyncio.create_task(rig.rebalance.leave())
    await asyncio.sleep(1)
    await rig.revoke()
    assert (asyncio.get_running_loop().time(), leaving.done()) == (3, True)
    assert rig.work.journal.count("commit") == 1


async def test_a_stop_shortens_the_drain_of_a_rebalance(rig: Rig) -> None:
    """That may be allowed more time than a stop has in all."""
    await rig.begin()
    rig.work.drain_s = 30
    revoking = asyncio.create_task(rig.revoke())
    await asyncio.sleep(1)
    await rig.rebalance.leave()
    assert asyncio.get_running_loop().time() == 1 + TIMES.stop_drain_s
    await revoking
    assert rig.work.journal[-2:] == ["commit", "forget"]


async def test_an_assignment_counts_the_partitions_again(rig: Rig) -> None:
    """Their number decides who owns a text; brokers that do not answer leave it as it was."""
    await rig.assign(*ASSIGNED)
    assert rig.work.partitions == 8
    rig.log.error = NodeNotReadyError()
    await rig.assign(*ASSIGNED)
    assert (rig.work.partitions, rig.life.failure) == (8, None)


async def test_a_worker_does_not_start_on_topics_that_differ(rig: Rig) -> None:
    """Nothing that it could do would be right."""
    rig.log.counts = {TOPICS.conversations: 16}
    with pytest.raises(Fatal) as caught:
        await rig.rebalance.start()
    assert caught.value.hint == "give all of them the largest number: grok-insights topics --grow"


async def test_a_topic_that_grows_alone_is_named_within_a_minute(rig: Rig) -> None:
    """The work continues until the group assigns again; once the topics agree there is nothing to report."""
    await rig.rebalance.start()
    await rig.begin()
    rig.log.counts = {TOPICS.conversations: 16}
    with capture_logs() as logs:
        await asyncio.sleep(60)
    assert [entry["event"] for entry in logs] == ["topics_unusable"]
    with pytest.raises(Retryable, match=r"conversations has 16, .* grok-insights topics --grow"):
        await rig.rebalance.check_partitions()
    assert (rig.work.journal, rig.work.partitions, rig.life.failure) == ([], 8, None)
    rig.log.counts = dict.fromkeys(ASSIGNED_TOPICS, 16)
    await asyncio.sleep(60)
    await rig.rebalance.check_partitions()
    assert rig.work.partitions == 16
    await rig.life.stop()


async def test_an_assignment_is_read_once_the_topics_agree(rig: Rig) -> None:
    """The broker that was asked may be the last one to learn of the new partitions."""
    await rig.rebalance.start()
    rig.log.counts = {TOPICS.conversations: 16}
    await rig.assign(*ASSIGNED)
    await rig.restored()
    assert (rig.work.journal, rig.life.failure) == ([], None)
    rig.log.counts = {}
    await asyncio.sleep(60)
    assert rig.work.journal == ["begin [3, 3] of 1"]
    await rig.life.stop()


async def test_an_assignment_of_topics_that_differed_is_never_read(rig: Rig) -> None:
    """A text's partition and its answers may be two workers'. When the topics agree, the group assigns again."""
    await rig.rebalance.start()
    await rig.assign(*ASSIGNED, TP(TOPICS.conversations, 11))
    await rig.restored()
    await asyncio.sleep(60)
    assert rig.work.journal == []
    await rig.assign(*ASSIGNED, generation=2)
    await rig.restored()
    assert rig.work.journal == ["begin [3, 3] of 2"]
    await rig.life.stop()


async def test_a_started_worker_commits_and_watches_its_recovery(rig: Rig) -> None:
    """Both end with the worker."""
    await rig.rebalance.start()
    assert (rig.work.partitions, len(asyncio.all_tasks())) == (8, 4)
    await rig.life.stop()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("topic", [*TOPICS.inputs, TOPICS.answers_changelog, TOPICS.insights, TOPICS.dead_letters])
async def test_topics_that_are_missing_are_named(topic: str) -> None:
    """The hint names the command that creates them."""
    log = FakeLog()
    log.counts = {topic: 0}
    with pytest.raises(Fatal) as caught:
        await count_partitions(cast(OffsetReader, log), TOPICS)
    assert (caught.value.why, "grok-insights topics" in caught.value.hint) == (topic, True)


async def test_sinks_may_have_other_numbers_of_partitions() -> None:
    """Only what Faust assigns together must be equal."""
    log = FakeLog()
    log.counts = {TOPICS.insights: 3, TOPICS.dead_letters: 1}
    assert await count_partitions(cast(OffsetReader, log), TOPICS) == 8
