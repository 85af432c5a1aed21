"""A replay sends each letter, then marks it, and knows what it could not send."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from schemas.errors import Fatal, Retryable, Unprocessable
from schemas.topics import Topic
from streams.dlq import replay as replay_module
from streams.dlq.ledger import LEDGER_TOPIC, Ledger
from streams.dlq.letter import REPLAY_LETTER, Letter, read_letter
from streams.dlq.pace import Pace
from streams.dlq.replay import MAX_IN_FLIGHT, MAX_NAMED, Replay
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


async def run(sender: FakeSender, letters: Iterable[Letter], values: Values | None = None) -> Replay:
    replay = Replay(sender, values or Values(), Pace(None), lambda _: None)
    await replay.run(each(letters))
    return replay


async def test_every_letter_is_sent_and_then_marked() -> None:
    """Its record carries its name, and its mark stands after it."""
    sender = FakeSender()
    letters = [letter(offset=number) for number in range(1_000)]
    replay = await run(sender, letters)
    names = [dict(sent.headers)[REPLAY_LETTER].decode() for sent in sender.to(Topic.CONVERSATIONS)]
    assert names == [f"3:{number}" for number in range(1_000)]
    ledger = Ledger()
    for sent in sender.to(LEDGER_TOPIC):
        ledger.add(sent.key, sent.value)
    assert all(ledger.mark_of(one) for one in letters)
    assert (replay.done.counts, replay.done.failed) == ({"refused": 1_000}, 0)


async def test_no_letter_is_marked_before_its_record_is_confirmed() -> None:
    """Killed in between it is sent again, never forgotten."""
    sender = FakeSender()
    await run(sender, [letter(offset=1)])
    assert [sent.topic for sent in sender.sent] == [Topic.CONVERSATIONS, LEDGER_TOPIC]


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
    assert len(sender.to(Topic.CONVERSATIONS)) == 20


async def test_what_cannot_be_replayed_is_named_and_not_marked() -> None:
    """A foreign record, a cut letter whose original is gone, a record that the topic refuses; the others go on."""

    def refuse(sent: Sent) -> None:
        if sent.value == b"large":
            raise Unprocessable("too_large", "too large for the topic")

    sender = FakeSender(refuse)
    letters = [read_letter(record(offset=1)), letter(offset=2), letter(offset=3, value=b"large"), letter(offset=4)]
    replay = await run(sender, letters, Values(2))
    assert {str(letter_id) for letter_id, _ in replay.done.named} == {"3:1", "3:2", "3:3"}
    assert replay.done.failed == 3
    assert [sent.key for sent in sender.to(LEDGER_TOPIC)] == [b"3:4"]


async def test_of_many_failures_only_some_are_named() -> None:
    """All are counted: memory stays bounded."""
    replay = await run(FakeSender(), [read_letter(record(offset=number)) for number in range(100)])
    assert (replay.done.failed, len(replay.done.named)) == (100, MAX_NAMED)


async def test_brokers_that_do_not_confirm_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and the hint that it can be run again."""
    monkeypatch.setattr(replay_module, "CONFIRM_WITHIN_S", 0.05)

    def refuse(_: Sent) -> None:
        raise Retryable("no broker")

    with pytest.raises(Fatal, match="do not confirm") as error:
        await run(FakeSender(refuse), [letter(offset=number) for number in range(3)])
    assert "run it again" in error.value.hint


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
    replay = Replay(sender, Waiting(), Pace(None), lambda _: None)
    running = asyncio.create_task(replay.run(letters()))
    for _ in range(5_000):
        await asyncio.sleep(0)
    assert taken == MAX_IN_FLIGHT + 1
    gate.set()
    await running
    assert len(sender.to(Topic.CONVERSATIONS)) == 1_000


async def test_one_large_letter_goes_alone() -> None:
    """Larger than all that may be under way together, it waits for the others and passes."""
    large = letter(offset=2, extra=[("dlq.truncated_from_bytes", b"%d" % (2 * replay_module.MAX_IN_FLIGHT_BYTES))])
    replay = await run(FakeSender(), [letter(offset=1), large, letter(offset=3)])
    assert replay.done.counts.total() == 3
