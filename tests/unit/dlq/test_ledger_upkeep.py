"""Before the first letter a replay proves that it may mark, and takes marks of letters that are gone back."""

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from schemas.errors import Fatal, Retryable
from schemas.kafka import Origin
from streams.dlq.ledger import Ledger, mark_record
from streams.dlq.ledger_upkeep import check_may_mark, forget_removed
from tests.fakes.analysis import NOON
from tests.support.topics import TOPICS
from tests.unit.dlq.factories import FakeSender, Sent, letter


async def test_a_user_who_may_not_mark_is_told_at_once() -> None:
    """With the cause, and not after half a minute as if the brokers were away."""

    def refuse(_: Sent) -> None:
        raise Retryable("Kafka: TopicAuthorizationFailedError") from TopicAuthorizationFailedError()

    with pytest.raises(Fatal) as error:
        await check_may_mark(FakeSender(refuse), TOPICS.replay_ledger)
    assert error.value.what == f"this user may not write to {TOPICS.replay_ledger}"
    assert "TopicAuthorizationFailedError" in error.value.why


async def test_the_probe_marks_nothing() -> None:
    """It is no letter's name and has no value."""
    sender, ledger = FakeSender(), Ledger()
    await check_may_mark(sender, TOPICS.replay_ledger)
    [probe] = sender.to(TOPICS.replay_ledger)
    ledger.add(probe.key, probe.value)
    assert ledger.before({3: 100}) == []


async def test_marks_of_removed_letters_are_taken_back() -> None:
    """And no others: the ledger does not grow for ever."""
    sender, ledger = FakeSender(), Ledger()
    for offset in range(600):
        ledger.add(*mark_record(letter(offset=offset), NOON, Origin("conversations", 0, 0)))
    await forget_removed(sender, TOPICS.replay_ledger, ledger, {TopicPartition(TOPICS.dead_letters, 3): (598, 700)})
    for sent in sender.sent:
        ledger.add(sent.key, sent.value)
    assert len(sender.sent) == 598
    assert [str(name) for name in ledger.before({3: 1_000})] == ["3:598", "3:599"]
