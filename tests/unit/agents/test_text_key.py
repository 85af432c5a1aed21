"""Equal texts have equal keys, and nothing else does."""

import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from agents.text_key import canonical_text, text_key
from schemas.conversation import Conversation, Message


def test_white_space_and_composition_do_not_count() -> None:
    """What looks the same is the same text."""
    one = canonical_text(Conversation(id="1", text="  caf\u00e9\tau lait \n"))
    assert one == canonical_text(Conversation(id="2", text="cafe\u0301 au  lait")) == "caf\u00e9 au lait"


def test_messages_become_lines_with_roles() -> None:
    """Who said what is part of the text."""
    messages = (Message("user", "where is\nmy parcel"), Message("agent", "on its way"))
    assert canonical_text(Conversation(id="1", messages=messages)) == "user: where is my parcel\nagent: on its way"


SPACES = "".join(filter(str.isspace, map(chr, range(sys.maxunicode + 1))))


@given(st.text() | st.text(st.sampled_from("ab ")) | st.text(st.sampled_from("ab\u0301\ufb01\u200b" + SPACES)))
def test_canonical_text_has_single_spaces_only(text: str) -> None:
    """The same as splitting every text at white space, whose characters are more than ASCII's."""
    split = " ".join(unicodedata.normalize("NFC", text).split())
    assert canonical_text(Conversation(id="1", text=text)) == split
    assert canonical_text(Conversation(id="1", messages=(Message(text, text),))) == f"{split}: {split}"


def test_the_space_is_the_only_printable_white_space() -> None:
    """A printable text without two spaces in a row is taken as canonical."""
    assert set(filter(str.isprintable, SPACES)) == {" "}


def test_negation_changes_the_key() -> None:
    """Texts that differ in one word never share an answer."""
    assert text_key("t", "I am happy") != text_key("t", "I am not happy")


@given(st.text(), st.text(), st.text(), st.text())
def test_tenants_never_share_a_key(tenant: str, text: str, other_tenant: str, other_text: str) -> None:
    """Neither by chance nor by a tenant that contains what another's text begins with."""
    same_key = text_key(tenant, text) == text_key(other_tenant, other_text)
    assert same_key == ((tenant, text) == (other_tenant, other_text))
