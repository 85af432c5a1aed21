"""DeadLetter: the original record, unchanged, with the reason why it cannot be processed."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from schemas.instant import Instant
from schemas.kafka import Origin

Headers = Sequence[tuple[str, bytes]]

#: Header with the conversation's id, where that could be read.
CONVERSATION_ID = "dlq.conversation_id"


class DeadLetterReason(StrEnum):
    """All reasons; they are the labels of `dead_letters_total`."""

    UNDECODABLE = "undecodable"  # not JSON, not UTF-8, nested too deeply
    TOO_LARGE = "too_large"
    INVALID = "invalid"  # JSON that is not a conversation
    BAD_TENANT = "bad_tenant"
    REFUSED = "refused"  # the provider refuses to analyse this text
    BAD_ANSWER = "bad_answer"  # no answer of the provider was valid
    UNSTORABLE = "unstorable"  # Postgres refuses the row


class DeadLetter(msgspec.Struct, frozen=True):
    """Key, value and headers are the original bytes.

    `detail` says what to change and never quotes the value. `received_at` is the original record's timestamp, so that a
    replay does not make the conversation newer. `conversation_id` is None where no id could be read.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: DeadLetterReason
    detail: str
    origin: Origin
    received_at: Instant
    at: Instant
    conversation_id: str | None = None

    def headers_out(self) -> list[tuple[str, bytes]]:
        """Returns the original headers and the `dlq.*` headers; `dlq.key` holds the original key.

        The `dlq.*` headers of an earlier dead letter are replaced: after a failed replay the newest reason counts.
        """
        kept = [(name, value) for name, value in self.headers if not name.startswith("dlq.")]
        ours = {
            "dlq.reason": self.reason.value,
            "dlq.detail": self.detail,
            "dlq.topic": self.origin.topic,
            "dlq.partition": str(self.origin.partition),
            "dlq.offset": str(self.origin.offset),
            "dlq.received_at": self.received_at.isoformat(),
            "dlq.at": self.at.isoformat(),
        }
        if self.conversation_id is not None:
            ours[CONVERSATION_ID] = self.conversation_id
        original_key = [] if self.key is None else [("dlq.key", self.key)]
        return kept + original_key + [(name, value.encode()) for name, value in ours.items()]
