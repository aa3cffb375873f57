-- Times are RFC 3339 texts in UTC with six decimals: their order is the order of time. Ids are lower-case hex.

-- One row per bot request. plan and free_request are as they were when it was first counted for its user; free_request
-- says that it used up one of the plan's free requests.
CREATE TABLE usage_records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    user_id TEXT,
    endpoint TEXT,
    method TEXT,
    status_code INTEGER,
    response_time_ms REAL NOT NULL,
    total_tokens INTEGER NOT NULL,
    cost REAL GENERATED ALWAYS AS (cost_nanousd / 1e9) VIRTUAL,
    error_message TEXT,
    created_at TEXT NOT NULL,
    service TEXT,
    instance TEXT,
    agent_id TEXT,
    session_id TEXT,
    llm_calls INTEGER NOT NULL,
    llm_errors INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost_nanousd INTEGER,
    unknown_usage_calls INTEGER NOT NULL,
    unpriced_calls INTEGER NOT NULL,
    model TEXT,
    plan TEXT NOT NULL,
    free_request INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    change_seq INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (started_at, trace_id, span_id)
);
CREATE INDEX usage_records_by_user ON usage_records (tenant, user_id, started_at);
CREATE INDEX usage_records_by_trace ON usage_records (trace_id);
CREATE INDEX usage_records_by_change ON usage_records (change_seq);
CREATE INDEX usage_records_free ON usage_records (tenant, user_id) WHERE free_request;

-- What stays of a record that went: it was folded into another, or its calls were. revision is that of its going; a record that comes
-- back under this key goes on from there.
CREATE TABLE record_tombstones (
    started_at TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    change_seq INTEGER NOT NULL,
    gone_at TEXT NOT NULL,
    PRIMARY KEY (started_at, trace_id, span_id)
) WITHOUT ROWID;
CREATE INDEX record_tombstones_by_trace ON record_tombstones (trace_id);
CREATE INDEX record_tombstones_by_change ON record_tombstones (change_seq);

-- One row per call of a model, beside the others of its record, whose key leads its own. request_span_id is null while its request
-- is unknown. model is the name in the price list, where it has one: dated names and aliases are one model.
-- partly_priced says that it was charged, but some of its tokens only as part of others, as no price of their own is known.
CREATE TABLE llm_calls (
    record_started_at TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    record_span_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    started_at TEXT NOT NULL,
    request_span_id TEXT,
    provider TEXT,
    host TEXT,
    request_model TEXT,
    response_model TEXT,
    operation TEXT,
    usage TEXT NOT NULL CHECK (usage IN ('reported', 'unknown')),
    unknown_reason TEXT,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    audio_input_tokens INTEGER NOT NULL,
    cached_audio_tokens INTEGER NOT NULL,
    audio_output_tokens INTEGER NOT NULL,
    cost_nanousd INTEGER,
    price_version TEXT,
    partly_priced INTEGER NOT NULL,
    service_tier TEXT,
    answered_from_cache INTEGER NOT NULL,
    streaming INTEGER NOT NULL,
    duration_ms REAL NOT NULL,
    time_to_first_token_ms REAL,
    error_type TEXT,
    dialect TEXT NOT NULL,
    model TEXT,
    PRIMARY KEY (record_started_at, trace_id, record_span_id, span_id)
) WITHOUT ROWID;

-- What was received of a trace: the usage extracts of its spans, never their content. A late span joins them, so that its trace
-- is seen whole. due_at is set while calls wait for their request, or nothing has come yet that leaves a record. claimed_by is the instance that
-- will look at it then; where it is null, any does.
CREATE TABLE trace_extracts (
    trace_id TEXT NOT NULL PRIMARY KEY,
    extract BLOB NOT NULL,
    first_seen_at TEXT NOT NULL,
    due_at TEXT,
    claimed_by TEXT
);
CREATE INDEX trace_extracts_due ON trace_extracts (due_at) WHERE due_at IS NOT NULL;

-- The sum of the usage records since the start of the period, free ones not counted as requests; free_requests_used is the number of
-- free ones in the whole life of the account. A period ends where its kind, anchor and time zone say, or with a reset by hand.
CREATE TABLE billing_accounts (
    tenant TEXT NOT NULL,
    user_id TEXT NOT NULL,
    plan TEXT NOT NULL,
    free_requests_used INTEGER NOT NULL DEFAULT 0,
    requests_used_current_period INTEGER NOT NULL DEFAULT 0,
    tokens_used_current_period INTEGER NOT NULL DEFAULT 0,
    cost_used_current_period_nanousd INTEGER NOT NULL DEFAULT 0,
    period_started_at TEXT NOT NULL,
    period_ends_at TEXT,
    period_kind TEXT NOT NULL DEFAULT 'month',
    period_anchor TEXT NOT NULL DEFAULT 'calendar' CHECK (period_anchor IN ('calendar', 'anniversary')),
    timezone TEXT NOT NULL DEFAULT 'UTC',
    first_request_at TEXT NOT NULL,
    last_manual_reset_at TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (tenant, user_id)
) WITHOUT ROWID;
CREATE INDEX billing_accounts_due ON billing_accounts (period_ends_at) WHERE period_ends_at IS NOT NULL;

-- Never changed, only added to. A period that ended, by itself or by hand, with what was counted between its start and the next; that
-- may be several periods later, if nothing happened in between. Or a change of plan, with what was counted in the period until then.
CREATE TABLE account_resets (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    user_id TEXT NOT NULL,
    period_started_at TEXT NOT NULL,
    next_period_started_at TEXT NOT NULL,
    created_at TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('period', 'manual', 'plan')),
    reason TEXT,
    plan TEXT NOT NULL,
    next_plan TEXT NOT NULL,
    requests_used INTEGER NOT NULL,
    tokens_used INTEGER NOT NULL,
    cost_used_nanousd INTEGER NOT NULL
);
CREATE INDEX account_resets_by_account ON account_resets (tenant, user_id);

-- How far each journal is in the database: what came before this frame is written and needed no longer.
CREATE TABLE journal_checkpoints (
    journal TEXT NOT NULL PRIMARY KEY,
    needed_lsn INTEGER NOT NULL,
    updated_at TEXT NOT NULL
);

-- Traces that the database would not take, set aside with the reason so that the others could go on.
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY,
    trace_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    extract BLOB NOT NULL,
    created_at TEXT NOT NULL
);
