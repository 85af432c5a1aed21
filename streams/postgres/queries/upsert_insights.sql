-- Writes a batch of results, one row for each (tenant, conversation), and the calls that were paid for them.
--
-- $1 holds the results. The newest occurred_at wins, and within a batch the newest text of a conversation. The same text
-- again only moves occurred_at, so that what it cost stays in its row, and a text between the two that comes late does
-- not replace it. Another analysis of the text (a new analysis version) replaces the row. A dead conversation is replaced
-- when its record ends otherwise after a replay, or is sent again.
--
-- $2 holds the calls. A call that is there already stays as it is: a record that is delivered again names it again.
--
-- Rows are taken in key order, calls after rows, so that two batches in flight cannot deadlock. One JSON parameter for
-- all results costs less than an array a column.
WITH paid AS (
    INSERT INTO calls
    SELECT * FROM json_populate_recordset(NULL::calls, $2::json)
    ORDER BY tenant, text_key, analysis_version, ended_at
    ON CONFLICT DO NOTHING
)
INSERT INTO insights AS stored (
    tenant, conversation_id, outcome, reason, sentiment, sentiment_score, topics, intent, urgency, summary,
    action_needed, confidence, language, extra, source, occurred_at, received_at, analysed_at, text_key,
    analysis_version, model, prompt_tokens, completion_tokens, cost_usd_ticks, origin_topic, origin_partition,
    origin_offset, metadata, repairs
)
SELECT DISTINCT ON (tenant, conversation_id)
    tenant, conversation_id, outcome, reason, sentiment, sentiment_score, topics, intent, urgency, summary,
    action_needed, confidence, language, extra, source, text_occurred_at, received_at, analysed_at, text_key,
    analysis_version, model, prompt_tokens, completion_tokens, cost_usd_ticks, origin_topic, origin_partition,
    origin_offset, metadata, repairs
FROM (
    SELECT *, max(occurred_at) OVER (PARTITION BY tenant, conversation_id, text_key) AS text_occurred_at
    FROM json_populate_recordset(NULL::insights, $1::json)
) AS batch
ORDER BY tenant, conversation_id, text_occurred_at DESC, (outcome = 'dead'), (outcome <> 'analysed'), occurred_at
ON CONFLICT (tenant, conversation_id) DO UPDATE SET
    occurred_at = excluded.occurred_at,
    (
        outcome, reason, sentiment, sentiment_score, topics, intent, urgency, summary, action_needed, confidence,
        language, extra, source, received_at, analysed_at, text_key, analysis_version, model, prompt_tokens,
        completion_tokens, cost_usd_ticks, origin_topic, origin_partition, origin_offset, metadata, repairs
    ) = (
        SELECT
            kept.outcome, kept.reason, kept.sentiment, kept.sentiment_score, kept.topics, kept.intent, kept.urgency,
            kept.summary, kept.action_needed, kept.confidence, kept.language, kept.extra, kept.source, kept.received_at,
            kept.analysed_at, kept.text_key, kept.analysis_version, kept.model, kept.prompt_tokens, kept.completion_tokens,
            kept.cost_usd_ticks, kept.origin_topic, kept.origin_partition, kept.origin_offset, kept.metadata, kept.repairs
        FROM (SELECT stored.*, true AS is_stored UNION ALL SELECT excluded.*, false) AS kept
        WHERE kept.is_stored = (
            excluded.text_key IS NOT DISTINCT FROM stored.text_key
            AND (stored.outcome <> 'dead' OR excluded.outcome = 'dead')
            AND (excluded.analysis_version IS NULL
                 OR excluded.analysis_version IS NOT DISTINCT FROM stored.analysis_version)
        )
    )
WHERE excluded.occurred_at > stored.occurred_at
   OR (excluded.occurred_at = stored.occurred_at AND stored.outcome = 'dead' AND excluded.outcome <> 'dead')
