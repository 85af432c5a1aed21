"""DeadLetter: the original record, untouched, with the reason why it was set aside."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from schemas.instant import Instant
from schemas.kafka import Origin

Headers = Sequence[tuple[str, bytes]]


class DeadLetterReason(StrEnum):
    """The closed list of reasons; labels of `dead_letters_total`."""

    UNDECODABLE = "undecodable"  # not JSON, not UTF-8, nested too deeply
    TOO_LARGE = "too_large"
    INVALID = "invalid"  # JSON, but not a conversation
    BAD_TENANT = "bad_tenant"
    REFUSED = "refused"  # the provider will not analyse this text
    BAD_ANSWER = "bad_answer"  # the provider's answers kept failing the check
    UNSTORABLE = "unstorable"  # Postgres refuses the row
    INTERNAL_ERROR = "internal_error"  # our own defect, after bounded attempts


class DeadLetter(msgspec.Struct, frozen=True):
    """Key, value and headers are the original bytes. `detail` names what to change and never quotes the value.

    `received_at` is the record's, whose own time stamp is not in the letter: a replay must not make it newer.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: DeadLetterReason
    detail: str
    origin: Origin
    received_at: Instant
    at: Instant

    def headers_out(self) -> list[tuple[str, bytes]]:
        """The original headers, then ours, `dlq.key` being the original key.

        An earlier dead letter's own headers are replaced, so that a replay that dies again tells its newest reason.
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
        original_key = [] if self.key is None else [("dlq.key", self.key)]
        return kept + original_key + [(name, value.encode()) for name, value in ours.items()]
