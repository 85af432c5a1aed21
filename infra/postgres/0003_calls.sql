-- migrate:up

ALTER TABLE insights
    ADD COLUMN metadata jsonb,
    ADD COLUMN repairs text[];

COMMENT ON COLUMN insights.metadata IS 'What the producer sent along with the text of this row, unchanged';
COMMENT ON COLUMN insights.repairs IS
    'What was changed so that the conversation could be processed: characters_replaced, text_cut, occurred_at_clamped';

COMMENT ON COLUMN insights.occurred_at IS
    'When it took place: the client''s time, or that of its latest message, or received_at; a newer one replaces the row';
COMMENT ON COLUMN insights.received_at IS
    'When the gateway accepted the text of this row, or the time of its record; at the same occurred_at the later wins';

-- Append-only: a row of insights shows the newest text of a conversation, and this table what every call cost.
CREATE TABLE calls (
    tenant            text NOT NULL,
    text_key          text NOT NULL,
    analysis_version  text NOT NULL,
    ended_at          timestamptz NOT NULL,
    conversation_id   text NOT NULL,
    outcome           text NOT NULL CHECK (outcome IN ('answered', 'bad_answer', 'refused', 'ambiguous')),
    model             text NOT NULL,
    prompt_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cost_usd_ticks    bigint NOT NULL,
    PRIMARY KEY (tenant, text_key, analysis_version, ended_at)
);

COMMENT ON TABLE calls IS 'One row for each call to the provider that was paid for, or may have been';
COMMENT ON COLUMN calls.tenant IS 'Owner of the conversation';
COMMENT ON COLUMN calls.text_key IS 'SHA-256 of tenant and canonical text, as in insights';
COMMENT ON COLUMN calls.analysis_version IS 'Hash of system prompt, answer schema and model';
COMMENT ON COLUMN calls.ended_at IS 'When the reply came, or the call was given up';
COMMENT ON COLUMN calls.conversation_id IS 'The conversation that the call was made for; equal texts share a call';
COMMENT ON COLUMN calls.outcome IS
    'answered; bad_answer: the answer failed its check; refused: by the provider; ambiguous: no reply, maybe billed';
COMMENT ON COLUMN calls.model IS 'Model that answered; the one asked for where none did';
COMMENT ON COLUMN calls.prompt_tokens IS '0 where no reply named them';
COMMENT ON COLUMN calls.completion_tokens IS 'Reasoning included; 0 where no reply named them';
COMMENT ON COLUMN calls.cost_usd_ticks IS '10^10 ticks are 1 USD; 0 where no reply named the cost';

-- Calls are inserted in the order of their time, so that a block range index finds a day at almost no cost.
CREATE INDEX calls_by_time ON calls USING brin (ended_at);

-- migrate:down

DROP TABLE calls;
ALTER TABLE insights DROP COLUMN metadata, DROP COLUMN repairs;
