"""What foreign records hold does a terminal no harm."""

import pytest

from streams.printable import printable


@pytest.mark.parametrize(
    ("given", "shown"),
    [(None, ""), ("a\tb", "a\\tb"), (b"\x1b[2J", "\\x1b[2J"), (b"\xff", "\ufffd"), ("Grüße", "Grüße")],
)
def test_control_characters_are_escaped(given: bytes | str | None, shown: str) -> None:
    """A foreign key must not move the cursor, nor make two lines of one."""
    assert printable(given) == shown
