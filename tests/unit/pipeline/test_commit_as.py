"""Offsets are committed as a member of the generation in which they were finished, or not at all."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import UnknownMemberIdError
from faust.types import TP
from streams.pipeline import consumer_thread
from streams.pipeline.consumer_thread import NO_GENERATION, OwnOffsetsThread, _commit_as_members_only


class Group:
    """A coordinator and its broker, which takes whatever is sent: a group without members does."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.taken: list[Any] = []

    async def _do_commit_offsets(self, assignment: object, offsets: object) -> None:
        self.taken.append(offsets)

    async def commit(self, offsets: object) -> None:
        """As aiokafka does it."""
        await asyncio.shield(self._do_commit_offsets(None, offsets))


class SlowGroup(Group):
    """Its broker answers when it is told to, and refuses."""

    def __init__(self, generation: int) -> None:
        super().__init__(generation)
        self.answers = asyncio.Event()

    async def _do_commit_offsets(self, assignment: object, offsets: object) -> None:
        await self.answers.wait()
        self.taken.append(offsets)
        raise UnknownMemberIdError


def thread_of(group: Group) -> OwnOffsetsThread:
    """Only what a commit needs."""
    _commit_as_members_only(group)
    thread = OwnOffsetsThread.__new__(OwnOffsetsThread)
    thread._consumer = cast(AIOKafkaConsumer, SimpleNamespace(commit=group.commit))
    return thread


@pytest.mark.parametrize(
    ("generation", "is_taken"),
    [(5, True), (NO_GENERATION, False), (6, False)],
    ids=["as that member", "as nobody", "in a later generation"],
)
async def test_offsets_are_committed_in_their_own_generation_only(generation: int, is_taken: bool) -> None:
    """After a freeze this worker is nobody until it joins again, and brokers take that from whoever finds the group
    empty: another worker's offset would move back."""
    group = Group(generation)
    assert await thread_of(group).commit_as(5, {TP("conversations", 0): 1_328}) is is_taken
    assert bool(group.taken) is is_taken


async def test_an_assignment_that_got_no_generation_commits_nothing() -> None:
    """The group may give the worker up between its join and its assignment."""
    group = Group(NO_GENERATION)
    assert not await thread_of(group).commit_as(NO_GENERATION, {TP("conversations", 0): 1_328})
    assert group.taken == []


async def test_a_refusal_that_comes_too_late_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers that were frozen refuse what nobody waits for any more; asyncio would log a traceback for each."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    monkeypatch.setattr(consumer_thread, "COMMIT_WITHIN_S", 0.01)
    group = SlowGroup(5)
    assert not await thread_of(group).commit_as(5, {TP("conversations", 0): 1_328})
    group.answers.set()
    while not group.taken:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert unheard == []
