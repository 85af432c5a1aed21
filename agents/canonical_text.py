"""Canonical text and the keys made from it: equal texts must meet in one partition and in one cache entry."""

import hashlib
import unicodedata

from schemas.conversation import Conversation


def canonical_text(conversation: Conversation) -> str:
    """The text that is analysed: NFC, white space collapsed; messages become one `role: text` line each."""
    if conversation.text is not None:
        return _normalised(conversation.text)
    return "\n".join(f"{_normalised(m.role)}: {_normalised(m.text)}" for m in conversation.messages or ())


def text_key(tenant: str, text: str) -> str:
    """SHA-256 of (tenant, canonical text) as hex: the record's key, so that its home partition follows from it.

    The tenant's length stands in front, so that no pair of tenant and text can imitate another.
    """
    tenant_bytes = tenant.encode()
    return hashlib.sha256(b"%d:%b:%b" % (len(tenant_bytes), tenant_bytes, text.encode())).hexdigest()


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
