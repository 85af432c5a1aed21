"""Canonical text and its text key, by which equal texts meet in one partition and one cache entry."""

import hashlib
import unicodedata

from schemas.conversation import Conversation


def canonical_text(conversation: Conversation) -> str:
    """Returns the text to analyse, in NFC with white space collapsed; each message becomes a line `role: text`."""
    if conversation.text is not None:
        return _normalised(conversation.text)
    return "\n".join(f"{_normalised(m.role)}: {_normalised(m.text)}" for m in conversation.messages or ())


def text_key(tenant: str, text: str) -> str:
    """Returns SHA-256 of (tenant, canonical text) as hex; it is the record's key and decides its owner partition.

    The hashed bytes begin with the tenant's length, so that no pair of tenant and text equals another pair.
    """
    tenant_bytes = tenant.encode()
    return hashlib.sha256(b"%d:%b:%b" % (len(tenant_bytes), tenant_bytes, text.encode())).hexdigest()


def _normalised(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    # The only printable white space is the space, and most texts have no two in a row: they are canonical already.
    if text.isprintable() and "  " not in text and text.strip() == text:
        return text
    return " ".join(text.split())
