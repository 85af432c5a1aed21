"""A replay sends each dead letter, then marks it, and reports what it could not send."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from schemas.errors import Fatal, Retryable, Unprocessable
from streams.operations.dlq import replay as replay_module
from streams.operations.dlq.dead_letter import REPLAYED_DEAD_LETTER, StoredDeadLetter
from streams.operations.dlq.ledger import ReplayLedger
from streams.operations.dlq.replay import (
    MAX_DESCRIBED,
    MAX_IN_FLIGHT,
    Pacer,
    Replay,
    ReplayOptions,
    ReplayResult,
    check_may_mark,
    check_rate,
    forget_removed,
)
from tests.support.topics import TOPICS
from tests.unit.operations.dlq.factories import FakeSender, Sent, dead_letter, each, foreign, ledger_of

ValueOf = Callable[[StoredDeadLetter], Awaitable[bytes | None]]


def values(*gone: int) -> ValueOf:
    """Each dead letter's own value; `gone` are offsets of truncated ones without an original."""

    async def value_of(one: StoredDeadLetter) -> bytes | None:
        if one.id.offset in gone:
            raise Unprocessable("too_large", "the original record is gone")
        return one.value

    return value_of


def values_after(gate: asyncio.Event, waiting: list[StoredDeadLetter]) -> ValueOf:
    """Each dead letter's own value, once the gate is open; meanwhile it is among the waiting."""

    async def value_of(one: StoredDeadLetter) -> bytes | None:
        waiting.append(one)
        await gate.wait()
        return one.value

    return value_of


def options(per_s: float | None = None, limit: int | None = None) -> ReplayOptions:
    return ReplayOptions(Pacer(per_s), limit=limit)


async def run(
    sender: FakeSender, dead_letters: Iterable[StoredDeadLetter], *gone: int, limit: int | None = None
) -> ReplayResult:
    result = ReplayResult()
    replay = Replay(sender, TOPICS, values(*gone), options(limit=limit), result)
    await replay.run(each(dead_letters), asyncio.Event())
    return result


async def test_every_dead_letter_is_sent_and_then_marked() -> None:
    """Its record names it."""
    sender = FakeSender()
    dead_letters = [dead_letter(offset=number) for number in range(1_000)]
    result = await run(sender, dead_letters)
    names = [dict(sent.headers)[REPLAYED_DEAD_LETTER].decode() for sent in sender.to(TOPICS.conversations)]
    assert names == [f"3:{number}" for number in range(1_000)]
    ledger = ReplayLedger()
    for sent in sender.to(TOPICS.replay_ledger):
        ledger.add(sent.key, sent.value)
    assert all(ledger.mark_of(one) for one in dead_letters)
    assert (result.sent, result.marked, result.failed) == ({"refused": 1_000}, 1_000, 0)


async def test_no_dead_letter_is_marked_before_its_record_is_confirmed() -> None:
    """After a kill in between it is sent again, never forgotten."""
    sender = FakeSender()
    await run(sender, [dead_letter(offset=1)])
    assert [sent.topic for sent in sender.sent] == [TOPICS.conversations, TOPICS.replay_ledger]


async def test_a_passing_failure_is_retried() -> None:
    """After one refusal each, every record still arrives once."""
    refused: set[bytes | None] = set()

    def refuse_once(sent: Sent) -> None:
        name = dict(sent.headers).get(REPLAYED_DEAD_LETTER, sent.key)
        if name not in refused:
            refused.add(name)
            raise Retryable("not now")

    sender = FakeSender(refuse_once)
    await run(sender, [dead_letter(offset=number) for number in range(20)])
    assert len(sender.to(TOPICS.conversations)) == 20


async def test_what_cannot_be_replayed_is_described_and_not_marked() -> None:
    """A foreign record, a truncated one whose original is gone, and one that the topic refuses stop no other."""

    def refuse(sent: Sent) -> None:
        if sent.value == b"large":
            raise Unprocessable("too_large", "too large for the topic")

    sender = FakeSender(refuse)
    result = await run(
        sender,
        [foreign(offset=1), dead_letter(offset=2), dead_letter(offset=3, value=b"large"), dead_letter(offset=4)],
        2,
    )
    assert {str(failed) for failed, _ in result.failures} == {"3:1", "3:2", "3:3"}
    assert result.failed == 3
    assert [sent.key for sent in sender.to(TOPICS.replay_ledger)] == [b"3:4"]


async def test_of_many_failures_only_some_are_described() -> None:
    """All are counted; memory stays bounded."""
    result = await run(FakeSender(), [foreign(offset=number) for number in range(100)])
    assert (result.failed, len(result.failures)) == (100, MAX_DESCRIBED)


async def test_brokers_that_do_not_confirm_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and the hint that it can be run again."""
    monkeypatch.setattr(replay_module, "CONFIRM_WITHIN_S", 0.05)

    def refuse(_: Sent) -> None:
        raise Retryable("no broker")

    with pytest.raises(Fatal, match="did not confirm") as error:
        await run(FakeSender(refuse), [dead_letter(offset=number) for number in range(3)])
    assert "run it again" in error.value.hint
    assert error.value.why.startswith("no broker")


async def test_dead_letters_in_flight_are_bounded() -> None:
    """Each one that is confirmed makes room for the next."""
    gate, waiting, sender = asyncio.Event(), list[StoredDeadLetter](), FakeSender()
    replay = Replay(sender, TOPICS, values_after(gate, waiting), options(), ReplayResult())
    dead_letters = each(dead_letter(offset=number) for number in range(1_000))
    running = asyncio.create_task(replay.run(dead_letters, asyncio.Event()))
    for _ in range(5_000):
        await asyncio.sleep(0)
    assert len(waiting) == MAX_IN_FLIGHT
    gate.set()
    await running
    assert len(sender.to(TOPICS.conversations)) == 1_000


async def test_a_rate_bounds_what_may_arrive_at_once() -> None:
    """Brokers that answer again after an outage get one second's worth, not all that a run may have in flight."""
    gate, waiting, most = asyncio.Event(), list[StoredDeadLetter](), 20

    class AlwaysDue(Pacer):
        def wait_s(self, now_s: float) -> float:
            return 0

    stop = asyncio.Event()
    replay = Replay(FakeSender(), TOPICS, values_after(gate, waiting), ReplayOptions(AlwaysDue(most)), ReplayResult())
    running = asyncio.create_task(replay.run(each(dead_letter(offset=number) for number in range(1_000)), stop))
    for _ in range(10 * most):  # turns of the event loop: each dead letter needs two
        await asyncio.sleep(0)
    assert len(waiting) == most
    stop.set()
    gate.set()
    await running


@pytest.mark.parametrize("limit", [1, 7, 300])
async def test_a_limit_bounds_the_records_sent(limit: int) -> None:
    """One that fails does not count, or the next run might meet only those."""
    sender = FakeSender()
    result = await run(sender, [dead_letter(offset=number) for number in range(400)], 0, 2, limit=limit)
    assert len(sender.to(TOPICS.conversations)) == result.sent.total() == result.marked == limit


async def test_a_stopped_replay_finishes_what_is_in_flight() -> None:
    """It takes no more dead letters, leaves none without its mark, and the result is complete."""
    stop, result, sender = asyncio.Event(), ReplayResult(), FakeSender()

    async def dead_letters() -> AsyncIterator[StoredDeadLetter]:
        for number in range(5):
            yield dead_letter(offset=number)
        stop.set()
        await asyncio.Event().wait()

    await Replay(sender, TOPICS, values(), options(), result).run(dead_letters(), stop)
    assert result.was_stopped
    assert len(sender.to(TOPICS.conversations)) == len(sender.to(TOPICS.replay_ledger)) == result.marked == 5


async def test_a_dead_letter_that_cannot_be_marked_ends_the_run() -> None:
    """It counts as sent all the same."""

    def refuse(sent: Sent) -> None:
        if sent.topic == TOPICS.replay_ledger:
            raise Unprocessable("too_large", "too large for the topic")

    result = ReplayResult()
    replay = Replay(FakeSender(refuse), TOPICS, values(), options(), result)
    with pytest.raises(Fatal, match="3:1 was sent and cannot be marked"):
        await replay.run(each([dead_letter(offset=1)]), asyncio.Event())
    assert (result.sent.total(), result.marked) == (1, 0)


async def test_one_large_dead_letter_goes_alone() -> None:
    """Larger than all that may be in flight together, it waits for the others and passes."""
    size = b"%d" % (2 * replay_module.MAX_IN_FLIGHT_BYTES)
    large = dead_letter(offset=2, extra=[("dlq.truncated_from_bytes", size)])
    result = await run(FakeSender(), [dead_letter(offset=1), large, dead_letter(offset=3)])
    assert result.sent.total() == 3


async def test_a_user_who_may_not_write_the_ledger_learns_it_at_once() -> None:
    """The error names the cause, without waiting as for absent brokers."""

    def refuse(_: Sent) -> None:
        raise Retryable("Kafka: TopicAuthorizationFailedError") from TopicAuthorizationFailedError()

    with pytest.raises(Fatal) as error:
        await check_may_mark(FakeSender(refuse), TOPICS.replay_ledger)
    assert error.value.what == f"this user may not write to {TOPICS.replay_ledger}"
    assert "TopicAuthorizationFailedError" in error.value.why


async def test_the_probe_of_the_ledger_marks_nothing() -> None:
    """Its key is not a dead letter's ID, and it has no value."""
    sender, ledger = FakeSender(), ReplayLedger()
    await check_may_mark(sender, TOPICS.replay_ledger)
    [probe] = sender.to(TOPICS.replay_ledger)
    ledger.add(probe.key, probe.value)
    assert ledger.before({3: 100}) == []


async def test_marks_of_removed_dead_letters_are_removed() -> None:
    """And no others, so that the ledger stays bounded."""
    sender, ledger = FakeSender(), ledger_of(*(dead_letter(offset=offset) for offset in range(600)))
    await forget_removed(sender, TOPICS.replay_ledger, ledger, {TopicPartition(TOPICS.dead_letters, 3): (598, 700)})
    for sent in sender.sent:
        ledger.add(sent.key, sent.value)
    assert len(sender.sent) == 598
    assert [str(left) for left in ledger.before({3: 1_000})] == ["3:598", "3:599"]


def test_a_pacer_spaces_turns_evenly() -> None:
    """Each waits for all turns before it."""
    pacer = Pacer(10)
    assert [round(pacer.wait_s(100.0), 6) for _ in range(3)] == [0.0, 0.1, 0.2]


def test_a_pause_saves_up_no_burst() -> None:
    """After an idle minute, the next two turns are a gap apart all the same."""
    pacer = Pacer(10)
    pacer.wait_s(0.0)
    assert [round(pacer.wait_s(60.0), 6) for _ in range(2)] == [0.0, 0.1]


def test_without_a_rate_every_turn_comes_at_once() -> None:
    """The brokers alone set the speed."""
    pacer = Pacer(None)
    assert [pacer.wait_s(1.0) for _ in range(3)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("per_s", "most"), [(0.5, 1), (10, 10), (2.5, 2)])
def test_one_seconds_worth_may_be_in_flight(per_s: float, most: int) -> None:
    """But at least one, or nothing would ever move."""
    assert Pacer(per_s).max_in_flight == most


@pytest.mark.parametrize("per_s", [float("nan"), float("inf"), -1.0, 0.0, 0.01])
def test_an_invalid_rate_is_misuse(per_s: float) -> None:
    """No rate at all is fine."""
    check_rate(None)
    check_rate(0.1)
    with pytest.raises(Fatal, match="invalid --rate") as error:
        check_rate(per_s)
    assert error.value.exit_code == 2
