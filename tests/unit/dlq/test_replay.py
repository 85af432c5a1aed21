"""A replay sends each letter, then marks it, and knows what it could not send."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from schemas.errors import Fatal, Retryable, Unprocessable
from streams.dlq import confirm
from streams.dlq import replay as replay_module
from streams.dlq.ledger import Ledger
from streams.dlq.letter import REPLAY_LETTER, Letter, read_letter
from streams.dlq.pace import Pace
from streams.dlq.replay import MAX_IN_FLIGHT, MAX_NAMED, Orders, Replay, Replayed
from tests.support.topics import TOPICS
from tests.unit.dlq.factories import FakeSender, Sent, letter, record


class Values:
    """Each letter's own value; `gone` are offsets of cut ones."""

    def __init__(self, *gone: int) -> None:
        self.gone = gone

    async def value_of(self, letter: Letter) -> bytes | None:
        if letter.id.offset in self.gone:
            raise Unprocessable("too_large", "the record is gone")
        return letter.value


async def each(letters: Iterable[Letter]) -> AsyncIterator[Letter]:
    for one in letters:
        yield one


def orders(per_s: float | None = None, limit: int | None = None) -> Orders:
    return Orders(Pace(per_s), lambda _: None, limit)


async def run(
    sender: FakeSender, letters: Iterable[Letter], values: Values | None = None, limit: int | None = None
) -> Replayed:
    done = Replayed()
    await Replay(sender, TOPICS, values or Values(), orders(limit=limit), done).run(each(letters), asyncio.Event())
    return done


async def test_every_letter_is_sent_and_then_marked() -> None:
    """Its record carries its name, and its mark stands after it."""
    sender = FakeSender()
    letters = [letter(offset=number) for number in range(1_000)]
    done = await run(sender, letters)
    names = [dict(sent.headers)[REPLAY_LETTER].decode() for sent in sender.to(TOPICS.conversations)]
    assert names == [f"3:{number}" for number in range(1_000)]
    ledger = Ledger()
    for sent in sender.to(TOPICS.replay_ledger):
        ledger.add(sent.key, sent.value)
    assert all(ledger.mark_of(one) for one in letters)
    assert (done.sent, done.marked, done.failed) == ({"refused": 1_000}, 1_000, 0)


async def test_no_letter_is_marked_before_its_record_is_confirmed() -> None:
    """Killed in between it is sent again, never forgotten."""
    sender = FakeSender()
    await run(sender, [letter(offset=1)])
    assert [sent.topic for sent in sender.sent] == [TOPICS.conversations, TOPICS.replay_ledger]


async def test_a_passing_failure_is_tried_again() -> None:
    """One refusal each: every letter still arrives once."""
    refused: set[bytes | None] = set()

    def refuse_once(sent: Sent) -> None:
        name = dict(sent.headers).get(REPLAY_LETTER, sent.key)
        if name not in refused:
            refused.add(name)
            raise Retryable("not now")

    sender = FakeSender(refuse_once)
    await run(sender, [letter(offset=number) for number in range(20)])
    assert len(sender.to(TOPICS.conversations)) == 20


async def test_what_cannot_be_replayed_is_named_and_not_marked() -> None:
    """A foreign record, a cut letter whose original is gone, a record that the topic refuses; the others go on."""

    def refuse(sent: Sent) -> None:
        if sent.value == b"large":
            raise Unprocessable("too_large", "too large for the topic")

    sender = FakeSender(refuse)
    letters = [read_letter(record(offset=1)), letter(offset=2), letter(offset=3, value=b"large"), letter(offset=4)]
    done = await run(sender, letters, Values(2))
    assert {str(letter_id) for letter_id, _ in done.named} == {"3:1", "3:2", "3:3"}
    assert done.failed == 3
    assert [sent.key for sent in sender.to(TOPICS.replay_ledger)] == [b"3:4"]


async def test_of_many_failures_only_some_are_named() -> None:
    """All are counted: memory stays bounded."""
    done = await run(FakeSender(), [read_letter(record(offset=number)) for number in range(100)])
    assert (done.failed, len(done.named)) == (100, MAX_NAMED)


async def test_brokers_that_do_not_confirm_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and the hint that it can be run again."""
    monkeypatch.setattr(confirm, "CONFIRM_WITHIN_S", 0.05)

    def refuse(_: Sent) -> None:
        raise Retryable("no broker")

    with pytest.raises(Fatal, match="do not confirm") as error:
        await run(FakeSender(refuse), [letter(offset=number) for number in range(3)])
    assert "run it again" in error.value.hint
    assert error.value.why.startswith("no broker")


async def test_letters_under_way_are_bounded() -> None:
    """By number; what is confirmed makes room for the next."""
    gate = asyncio.Event()
    taken = 0

    async def letters() -> AsyncIterator[Letter]:
        nonlocal taken
        for number in range(1_000):
            taken += 1
            yield letter(offset=number)

    class Waiting(Values):
        async def value_of(self, letter: Letter) -> bytes | None:
            await gate.wait()
            return letter.value

    sender = FakeSender()
    replay = Replay(sender, TOPICS, Waiting(), orders(), Replayed())
    running = asyncio.create_task(replay.run(letters(), asyncio.Event()))
    for _ in range(5_000):
        await asyncio.sleep(0)
    assert taken == MAX_IN_FLIGHT + 1
    gate.set()
    await running
    assert len(sender.to(TOPICS.conversations)) == 1_000


async def test_a_rate_bounds_what_may_arrive_at_once() -> None:
    """Brokers that were silent and answer again get one second's worth, not all that a run may have under way."""
    gate, waiting, most = asyncio.Event(), 0, 20

    class Waiting(Values):
        async def value_of(self, letter: Letter) -> bytes | None:
            nonlocal waiting
            waiting += 1
            await gate.wait()
            return letter.value

    class AlwaysDue(Pace):
        def wait_s(self, now_s: float) -> float:
            return 0

    stop = asyncio.Event()
    replay = Replay(FakeSender(), TOPICS, Waiting(), Orders(AlwaysDue(most), lambda _: None), Replayed())
    running = asyncio.create_task(replay.run(each(letter(offset=number) for number in range(1_000)), stop))
    for _ in range(10 * most):  # turns of the event loop: each letter needs two
        await asyncio.sleep(0)
    assert waiting == most
    stop.set()
    gate.set()
    await running


@pytest.mark.parametrize("limit", [1, 7, 300])
async def test_at_most_so_many_letters_are_sent(limit: int) -> None:
    """One that cannot be sent does not use the limit up: the next run must not meet only those."""
    sender = FakeSender()
    done = await run(sender, [letter(offset=number) for number in range(400)], Values(0, 2), limit)
    assert len(sender.to(TOPICS.conversations)) == done.sent.total() == done.marked == limit


async def test_a_replay_that_is_stopped_finishes_what_is_under_way() -> None:
    """Nothing is taken any more, nothing stays without its mark, and the report is whole."""
    stop, done, sender = asyncio.Event(), Replayed(), FakeSender()

    async def letters() -> AsyncIterator[Letter]:
        for number in range(5):
            yield letter(offset=number)
        stop.set()
        await asyncio.Event().wait()

    await Replay(sender, TOPICS, Values(), orders(), done).run(letters(), stop)
    assert done.was_stopped
    assert len(sender.to(TOPICS.conversations)) == len(sender.to(TOPICS.replay_ledger)) == done.marked == 5


async def test_a_letter_that_cannot_be_marked_ends_the_run() -> None:
    """It was sent all the same, and the report says so."""

    def refuse(sent: Sent) -> None:
        if sent.topic == TOPICS.replay_ledger:
            raise Unprocessable("too_large", "too large for the topic")

    done = Replayed()
    with pytest.raises(Fatal, match="3:1 was sent and cannot be marked"):
        await Replay(FakeSender(refuse), TOPICS, Values(), orders(), done).run(
            each([letter(offset=1)]), asyncio.Event()
        )
    assert (done.sent.total(), done.marked) == (1, 0)


async def test_one_large_letter_goes_alone() -> None:
    """Larger than all that may be under way together, it waits for the others and passes."""
    large = letter(offset=2, extra=[("dlq.truncated_from_bytes", b"%d" % (2 * replay_module.MAX_IN_FLIGHT_BYTES))])
    done = await run(FakeSender(), [letter(offset=1), large, letter(offset=3)])
    assert done.sent.total() == 3
