-- Returns the row of one conversation.
SELECT * FROM insights WHERE tenant = $1 AND conversation_id = $2
