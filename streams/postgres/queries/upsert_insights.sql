-- Writes a batch of results, one row for each (tenant, conversation), and the calls that were paid for them.
--
-- $1 holds the results. The newest occurred_at wins; at the same one a result that is not dead, then the one received
-- last. The same text again only moves occurred_at, so that what it cost stays in its row, whichever of its records is
-- written first, and a text between the two that comes late does not replace it. Another analysis of the text (a new
-- analysis version) replaces the row. A dead conversation is replaced when its record ends otherwise after a replay, or
-- is sent again. A record that failed its check has no text key, and its occurred_at says only when it was received: its
-- result replaces none that has a text key, and is replaced by any that has one and by that of a later failed record.
--
-- $2 holds the calls. A call that is there already stays as it is: a record that is delivered again names it again.
--
-- Rows and calls are each taken in the order of their keys, and Postgres runs the insert into calls last, since nothing
-- reads from it: two batches in flight do not deadlock. One JSON parameter for all results costs less than an array a
-- column.
WITH paid AS (
    INSERT INTO calls (
        tenant, text_key, analysis_version, ended_at, conversation_id, outcome, model, prompt_tokens, completion_tokens,
        cost_usd_ticks
    )
    SELECT
        tenant, text_key, analysis_version, ended_at, conversation_id, outcome, model, prompt_tokens, completion_tokens,
        cost_usd_ticks
    FROM json_populate_recordset(NULL::calls, $2::json)
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
    SELECT *, max(occurred_at) OVER same_text AS text_occurred_at, max(received_at) OVER same_text AS text_received_at
    FROM json_populate_recordset(NULL::insights, $1::json)
    WINDOW same_text AS (PARTITION BY tenant, conversation_id, text_key)
) AS batch
ORDER BY
    tenant, conversation_id, (text_key IS NULL), text_occurred_at DESC, (outcome = 'dead'), text_received_at DESC,
    CASE WHEN text_key IS NULL THEN occurred_at END DESC, (outcome <> 'analysed'), occurred_at
ON CONFLICT (tenant, conversation_id) DO UPDATE SET
    occurred_at = CASE
        WHEN stored.text_key IS NULL THEN excluded.occurred_at
        ELSE greatest(excluded.occurred_at, stored.occurred_at)
    END,
    repairs = CASE
        WHEN stored.text_key IS NULL OR excluded.occurred_at >= stored.occurred_at THEN excluded.repairs
        ELSE stored.repairs
    END,
    (
        outcome, reason, sentiment, sentiment_score, topics, intent, urgency, summary, action_needed, confidence,
        language, extra, source, received_at, analysed_at, text_key, analysis_version, model, prompt_tokens,
        completion_tokens, cost_usd_ticks, origin_topic, origin_partition, origin_offset, metadata
    ) = (
        SELECT
            outcome, reason, sentiment, sentiment_score, topics, intent, urgency, summary, action_needed, confidence,
            language, extra, source, received_at, analysed_at, text_key, analysis_version, model, prompt_tokens,
            completion_tokens, cost_usd_ticks, origin_topic, origin_partition, origin_offset, metadata
        FROM (SELECT stored.*, true AS is_stored UNION ALL SELECT excluded.*, false) AS candidate
        WHERE candidate.is_stored = (
            excluded.text_key IS NOT NULL AND excluded.text_key IS NOT DISTINCT FROM stored.text_key
            AND (stored.outcome <> 'dead' OR excluded.outcome = 'dead')
            AND (excluded.analysis_version IS NULL
                 OR excluded.analysis_version IS NOT DISTINCT FROM stored.analysis_version)
            AND NOT (stored.outcome = 'cached' AND excluded.outcome = 'analysed')
        )
    )
WHERE (excluded.text_key IS NOT NULL, excluded.occurred_at, excluded.outcome <> 'dead', excluded.received_at)
    > (stored.text_key IS NOT NULL, stored.occurred_at, stored.outcome <> 'dead', stored.received_at)
    OR (excluded.text_key, excluded.analysis_version, excluded.outcome, stored.outcome)
    = (stored.text_key, stored.analysis_version, 'analysed', 'cached')
