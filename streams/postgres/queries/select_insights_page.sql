-- Returns one page of insights, newest first, by the index insights_by_time.
-- {where} and {limit} hold placeholders only; values are always bound.
SELECT * FROM insights WHERE {where} ORDER BY occurred_at DESC, conversation_id DESC LIMIT {limit}
