-- How one conversation ended.
SELECT * FROM insights WHERE tenant = $1 AND conversation_id = $2
