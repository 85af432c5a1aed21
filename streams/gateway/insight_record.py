"""InsightRecord: one row of the table `insights` as HTTP clients see it, with the field names of the event."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from schemas.insight import Insight
from schemas.outcome import OutcomeName


class InsightRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one conversation ended. Absent parts are left out of the JSON; cost is in ticks of 10^-10 USD."""

    id: str
    outcome: OutcomeName
    occurred_at: datetime
    received_at: datetime
    analysed_at: datetime
    prompt_tokens: int
    completion_tokens: int
    cost_usd_ticks: int
    reason: str | None = None
    insight: Insight | None = None
    source: str | None = None
    text_key: str | None = None
    analysis_version: str | None = None
    model: str | None = None


class ConversationState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The short answer to a question for one id."""

    id: str
    outcome: OutcomeName
    insight: Insight | None = None
    reason: str | None = None


_SAME_NAME = tuple(name for name in InsightRecord.__struct_fields__ if name not in ("id", "insight"))
_INSIGHT_FIELDS = tuple(name for name in Insight.__struct_fields__ if name not in ("topics", "extra"))


def record_from_row(row: Mapping[str, Any]) -> InsightRecord:
    """A row of `insights` as asyncpg gives it; `extra` comes as JSON text."""
    return InsightRecord(id=row["conversation_id"], insight=_insight(row), **{name: row[name] for name in _SAME_NAME})


def _insight(row: Mapping[str, Any]) -> Insight | None:
    if row["sentiment"] is None:
        return None
    return Insight(
        topics=tuple(row["topics"] or ()),
        extra=msgspec.json.decode(row["extra"]) if row["extra"] is not None else {},
        **{name: row[name] for name in _INSIGHT_FIELDS},
    )
