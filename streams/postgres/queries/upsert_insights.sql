-- Writes a batch of results, one row for each (tenant, conversation). The newest occurred_at wins; the same result
-- again changes nothing, except that a dead conversation is replaced when its record ends otherwise after a replay.
-- Rows are taken in key order, so that two batches in flight cannot deadlock. One JSON parameter for the whole batch
-- costs less than an array a column.
INSERT INTO insights AS stored (
    tenant, conversation_id, outcome, reason, sentiment, sentiment_score, topics, intent, urgency, summary,
    action_needed, confidence, language, extra, source, occurred_at, received_at, analysed_at, text_key,
    analysis_version, model, prompt_tokens, completion_tokens, cost_usd_ticks, origin_topic, origin_partition,
    origin_offset
)
SELECT DISTINCT ON (tenant, conversation_id)
    tenant, conversation_id, outcome, reason, sentiment, sentiment_score, topics, intent, urgency, summary,
    action_needed, confidence, language, extra, source, occurred_at, received_at, analysed_at, text_key,
    analysis_version, model, prompt_tokens, completion_tokens, cost_usd_ticks, origin_topic, origin_partition,
    origin_offset
FROM json_populate_recordset(NULL::insights, $1::json)
ORDER BY tenant, conversation_id, occurred_at DESC, (outcome = 'dead')
ON CONFLICT (tenant, conversation_id) DO UPDATE SET
    outcome = excluded.outcome,
    reason = excluded.reason,
    sentiment = excluded.sentiment,
    sentiment_score = excluded.sentiment_score,
    topics = excluded.topics,
    intent = excluded.intent,
    urgency = excluded.urgency,
    summary = excluded.summary,
    action_needed = excluded.action_needed,
    confidence = excluded.confidence,
    language = excluded.language,
    extra = excluded.extra,
    source = excluded.source,
    occurred_at = excluded.occurred_at,
    received_at = excluded.received_at,
    analysed_at = excluded.analysed_at,
    text_key = excluded.text_key,
    analysis_version = excluded.analysis_version,
    model = excluded.model,
    prompt_tokens = excluded.prompt_tokens,
    completion_tokens = excluded.completion_tokens,
    cost_usd_ticks = excluded.cost_usd_ticks,
    origin_topic = excluded.origin_topic,
    origin_partition = excluded.origin_partition,
    origin_offset = excluded.origin_offset
WHERE excluded.occurred_at > stored.occurred_at
   OR (excluded.occurred_at = stored.occurred_at AND stored.outcome = 'dead' AND excluded.outcome <> 'dead')
