"""ConversationResult: how one conversation ended, as the row in Postgres and the event in `insights` hold it."""

import msgspec

from schemas.insight import Insight
from schemas.instant import Instant
from schemas.kafka import Origin
from schemas.outcome import OutcomeName


class ConversationResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One conversation's end. `insight` is there for analysed and cached, `reason` for filtered and dead.

    `occurred_at` is the client's, or the time of receipt; of two results with the same tenant and id the newer
    `occurred_at` wins. Tokens and cost are those of this conversation's own call: 0 unless analysed.
    """

    tenant: str
    id: str
    outcome: OutcomeName
    occurred_at: Instant
    received_at: Instant
    analysed_at: Instant
    origin: Origin
    reason: str | None = None
    insight: Insight | None = None
    source: str | None = None
    text_key: str | None = None
    analysis_version: str | None = None
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd_ticks: int = 0

    def encode(self) -> bytes:
        """The value of the event in `insights`: JSON, UTF-8, absent fields left out."""
        return _encoder.encode(self)


_encoder = msgspec.json.Encoder()
