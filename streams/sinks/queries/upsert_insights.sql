-- Writes a batch of results, one row for each (tenant, conversation). The newest occurred_at wins; the same result
-- again changes nothing, except that a dead conversation is replaced when its record ends otherwise after a replay.
-- Rows are taken in key order, so that two batches under way never wait for each other.
INSERT INTO insights AS stored (
    tenant, conversation_id, outcome, reason, sentiment, sentiment_score, topics, intent, urgency, summary,
    action_needed, confidence, language, extra, source, occurred_at, received_at, analysed_at, text_key,
    analysis_version, model, prompt_tokens, completion_tokens, cost_usd_ticks, origin_topic, origin_partition,
    origin_offset
)
SELECT DISTINCT ON (tenant, conversation_id)
    tenant, conversation_id, outcome, reason, sentiment, sentiment_score,
    CASE WHEN topics IS NULL THEN NULL ELSE ARRAY(SELECT jsonb_array_elements_text(topics)) END,
    intent, urgency, summary, action_needed, confidence, language, extra, source, occurred_at, received_at, analysed_at,
    text_key, analysis_version, model, prompt_tokens, completion_tokens, cost_usd_ticks, origin_topic, origin_partition,
    origin_offset
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::jsonb[], $8::text[], $9::text[],
    $10::text[], $11::bool[], $12::float8[], $13::text[], $14::jsonb[], $15::text[], $16::timestamptz[],
    $17::timestamptz[], $18::timestamptz[], $19::text[], $20::text[], $21::text[], $22::bigint[], $23::bigint[],
    $24::bigint[], $25::text[], $26::int[], $27::bigint[]
) AS batch (
    tenant, conversation_id, outcome, reason, sentiment, sentiment_score, topics, intent, urgency, summary,
    action_needed, confidence, language, extra, source, occurred_at, received_at, analysed_at, text_key,
    analysis_version, model, prompt_tokens, completion_tokens, cost_usd_ticks, origin_topic, origin_partition,
    origin_offset
)
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
