-- One page, newest first, by the index insights_by_time; {where} is made by filters.py and holds placeholders only.
SELECT * FROM insights WHERE {where} ORDER BY occurred_at DESC, conversation_id DESC LIMIT {limit}
