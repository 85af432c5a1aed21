"""Where a page of insights ended, as an opaque token that clients hand back. Pure."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from schemas.conversation import MAX_ID_CHARS
from schemas.errors import Rejected
from schemas.instant import Instant

#: 256 characters of at most 6 bytes each in JSON, the time, and base64's third on top stay well below this.
MAX_CURSOR_CHARS = 4096


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last item of a page, in the order of the list: newest `occurred_at` first, then by id."""

    occurred_at: Instant
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]

    def encode(self) -> str:
        """The token: base64url without padding, so that it needs no escaping in a URL."""
        position = Cursor(self.occurred_at.astimezone(UTC), self.id)
        return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def decode_cursor(token: str) -> Cursor:
    """Raises Rejected (400, `invalid_cursor`) for anything that `encode` did not make."""
    try:
        cursor = _decoder.decode(_unpadded(token))
        if cursor.encode() == token and "\0" not in cursor.id:
            return cursor
    except (ValueError, OverflowError, msgspec.DecodeError, binascii.Error):
        pass
    raise Rejected("invalid_cursor", "take next_cursor from an answer as it is", field="cursor", status=400)


def _unpadded(token: str) -> bytes:
    if len(token) > MAX_CURSOR_CHARS:
        raise ValueError("too long")
    return base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))


_decoder = msgspec.json.Decoder(Cursor)


def cursor_after(occurred_at: datetime, conversation_id: str) -> str:
    """The token of a page that ends with this item."""
    return Cursor(occurred_at, conversation_id).encode()
