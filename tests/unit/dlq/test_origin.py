"""A cut letter is replayed from its original only if that is the very record."""

from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from streams.dlq.origin import Originals, is_original
from tests.support.topics import TOPICS
from tests.unit.dlq.factories import letter

WHOLE = b"a value that was too large"
CUT = letter(value=WHOLE[:7], extra=[("dlq.truncated_from_bytes", b"%d" % len(WHOLE))])


def original(**fields: Any) -> ConsumerRecord:
    values = {"offset": 2, "key": b"key", "value": WHOLE, **fields}
    return ConsumerRecord(
        "conversations", 1, values["offset"], 0, 0, values["key"], values["value"], None, 0, len(WHOLE), ()
    )


def test_the_record_it_was_cut_from_is_known() -> None:
    """Same place, key and size, and it begins as the letter does."""
    assert is_original(CUT, original())


@pytest.mark.parametrize("other", [{"offset": 3}, {"key": b"k"}, {"value": WHOLE + b"!"}, {"value": WHOLE[::-1]}])
def test_another_record_in_its_place_is_not(other: dict[str, Any]) -> None:
    """A topic that was made anew holds other records at the same offsets; retention moves the first one on."""
    assert not is_original(CUT, original(**other))


async def test_a_whole_letter_needs_no_broker() -> None:
    """Its own value is the record's."""
    assert await Originals({}, TOPICS).value_of(letter(value=b"whole")) == b"whole"
