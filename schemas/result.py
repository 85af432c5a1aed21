"""The outcome of a conversation, as stored in Postgres and sent to the topic `insights`."""

from typing import Any

import msgspec

from schemas.conversation import Repair
from schemas.insight import Insight
from schemas.instant import Instant
from schemas.kafka import Origin
from schemas.outcome import OutcomeName


class ConversationResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the topic `insights` carries: an outcome, with `insight` if analysed or cached, else with `reason`.

    `occurred_at` comes from the client, or from its latest message, or is the time of receipt. Of two results with the
    same tenant and ID, the one with the newer `occurred_at` wins, and at the same time the one received last; a row of
    the same text only takes its `occurred_at`. Tokens and cost are those of the call that gave the answer, 0 unless
    analysed. `repairs` is what was changed in the conversation so that it could be processed.
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
    metadata: dict[str, Any] | None = None
    repairs: tuple[Repair, ...] = ()

    def encode(self) -> bytes:
        """Returns the value of the event: JSON in UTF-8, without the absent fields."""
        return _encoder.encode(self)


_encoder = msgspec.json.Encoder()
