"""The fake dead letters and the topic `conversations.dlq` keep the same promises."""

import pytest
from streams.pipeline.delivery import Letters
from streams.sinks.producer import ConfirmedProducer

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import Origin
from streams.dev.local.tansu import Tansu
from streams.sinks.dead_letters import DeadLetterSink
from tests.fakes.analysis import NOON
from tests.fakes.sinks import FakeLetters
from tests.support.topics import TOPICS
from tests.topic_log import records_of


def a_letter(**fields: object) -> DeadLetter:
    values: dict[str, object] = {
        "key": b"key",
        "value": b"not json \xff",
        "headers": [("a", b"\xff"), ("a", b"again")],
        "reason": DeadLetterReason.UNDECODABLE,
        "detail": "not JSON",
        "origin": Origin("conversations", 1, 2),
        "received_at": NOON,
        "at": NOON,
    }
    return DeadLetter(**{**values, **fields})  # type: ignore[arg-type]


class Box:
    """Letters under test, with a way to see what was set aside: the original bytes, and our headers."""

    def __init__(self, letters: Letters, bootstrap_servers: str = "") -> None:
        self.letters = letters
        self._bootstrap_servers = bootstrap_servers

    async def found(self) -> list[tuple[bytes | None, list[tuple[str, bytes]]]]:
        if isinstance(self.letters, FakeLetters):
            return [(letter.value, letter.headers_out()) for letter, _ in self.letters.sent]
        records = await records_of(self._bootstrap_servers, TOPICS.dead_letters)
        return [(record.value, list(record.headers)) for record in records]


@pytest.fixture(params=["fake", "topic"])
def box(request: pytest.FixtureRequest) -> Box:
    if request.param == "fake":
        return Box(FakeLetters())
    sink = DeadLetterSink(request.getfixturevalue("producer"), TOPICS.dead_letters)
    return Box(sink, request.getfixturevalue("tansu").bootstrap_servers)


async def test_letters_are_kept_as_they_are_and_in_order(box: Box) -> None:
    """Value and headers byte for byte, whatever a foreign producer put there; a repeat is kept as well."""
    letters = [
        a_letter(),
        a_letter(key=None),
        a_letter(value=None),
        a_letter(headers=[]),
        a_letter(headers=[("null", None)]),
        a_letter(detail="über \0"),
        a_letter(),
    ]
    for letter in letters:
        await box.letters.send(letter, "c-1")
    assert await box.found() == [(letter.value, letter.headers_out()) for letter in letters]


async def test_a_record_of_neither_key_nor_value_is_kept(box: Box) -> None:
    """Nothing is in it, but it stood in the log and is accounted for."""
    await box.letters.send(a_letter(key=None, value=None), None)
    [(value, headers)] = await box.found()
    assert not value
    assert dict(headers)["dlq.reason"] == b"undecodable"


async def test_a_letter_is_keyed_by_its_conversation(producer: ConfirmedProducer, tansu: Tansu) -> None:
    """Where no id could be read the original key stays; it is among the headers either way."""
    await DeadLetterSink(producer, TOPICS.dead_letters).send(a_letter(), "Grüße")
    await DeadLetterSink(producer, TOPICS.dead_letters).send(a_letter(), None)
    records = await records_of(tansu.bootstrap_servers, TOPICS.dead_letters)
    assert {record.key for record in records} == {"Grüße".encode(), b"key"}
    assert {dict(record.headers)["dlq.key"] for record in records} == {b"key"}
