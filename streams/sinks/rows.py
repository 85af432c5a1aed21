"""ConversationResult -> the columns of one row, in the order of queries/upsert_insights.sql."""

from collections.abc import Sequence
from typing import Any

import orjson

from schemas.insight import Insight
from schemas.result import ConversationResult

Row = tuple[Any, ...]


def row_of(result: ConversationResult) -> Row:
    """The values of one row; columns of the insight are NULL where there is none."""
    return (
        result.tenant,
        result.id,
        result.outcome,
        result.reason,
        *_insight_columns(result.insight),
        result.source,
        result.occurred_at,
        result.received_at,
        result.analysed_at,
        result.text_key,
        result.analysis_version,
        result.model,
        result.prompt_tokens,
        result.completion_tokens,
        result.cost_usd_ticks,
        result.origin.topic,
        result.origin.partition,
        result.origin.offset,
    )


def columns_of(rows: Sequence[Row]) -> list[list[Any]]:
    """Rows turned into one array a column, as `unnest` takes them."""
    return [list(column) for column in zip(*rows, strict=True)]


def _insight_columns(insight: Insight | None) -> Row:
    if insight is None:
        return (None,) * 10
    return (
        insight.sentiment,
        insight.sentiment_score,
        orjson.dumps(insight.topics).decode(),
        insight.intent,
        insight.urgency,
        insight.summary,
        insight.action_needed,
        insight.confidence,
        insight.language,
        orjson.dumps(insight.extra).decode() if insight.extra else None,
    )
