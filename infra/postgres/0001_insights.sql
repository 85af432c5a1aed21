-- migrate:up

-- One row for each conversation: how it ended and, for analysed and cached ones, what was found.
-- The conversation's text is not stored.
CREATE TABLE insights (
    tenant            text NOT NULL,
    conversation_id   text NOT NULL,
    outcome           text NOT NULL CHECK (outcome IN ('analysed', 'cached', 'filtered', 'dead')),
    reason            text,
    sentiment         text,
    sentiment_score   double precision,
    topics            text[],
    intent            text,
    urgency           text,
    summary           text,
    action_needed     boolean,
    confidence        double precision,
    language          text,
    extra             jsonb,
    source            text,
    occurred_at       timestamptz NOT NULL,
    received_at       timestamptz NOT NULL,
    analysed_at       timestamptz NOT NULL,
    text_key          text,
    analysis_version  text,
    model             text,
    prompt_tokens     bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    cost_usd_ticks    bigint NOT NULL DEFAULT 0,
    origin_topic      text NOT NULL,
    origin_partition  integer NOT NULL,
    origin_offset     bigint NOT NULL,
    PRIMARY KEY (tenant, conversation_id)
);

-- The order in which insights are listed and paged through.
CREATE INDEX insights_by_time ON insights (tenant, occurred_at DESC, conversation_id DESC);

-- migrate:down

DROP TABLE insights;
