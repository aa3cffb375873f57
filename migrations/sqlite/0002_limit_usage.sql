-- What was used of a quota by one subject in one period: the sum over the usage records, moved in the transaction that moves them.
-- The key is a hash of limit, subject and period; version goes up with every change.
CREATE TABLE limit_usage (
    key TEXT NOT NULL PRIMARY KEY,
    limit_name TEXT NOT NULL,
    subject TEXT NOT NULL,
    period_started_at TEXT NOT NULL,
    period_ends_at TEXT,
    used INTEGER NOT NULL,
    version INTEGER NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX limit_usage_by_limit ON limit_usage (limit_name, used);

-- What each record is charged by each limit, moved in the same transaction; limit_usage is the sum of it. calls says which of the record's
-- calls count: all where it is empty, else those of the model whose name stands behind an equals sign. amount is what they come to by the meter;
-- estimate is what was held for the request beyond that, as long as the usage of some call is not known. A rate is not counted in limit_usage,
-- and has a row only where there is an estimate.
CREATE TABLE limit_charges (
    record_started_at TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    record_span_id TEXT NOT NULL,
    key TEXT NOT NULL,
    calls TEXT NOT NULL,
    meter TEXT NOT NULL CHECK (meter IN ('requests', 'tokens', 'input_tokens', 'output_tokens', 'cost')),
    counted INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    estimate INTEGER NOT NULL,
    PRIMARY KEY (record_started_at, trace_id, record_span_id, key, calls)
) WITHOUT ROWID;
CREATE INDEX limit_charges_by_key ON limit_charges (key);

-- Names this database among those that share limits.
CREATE TABLE database_identity (
    id TEXT NOT NULL PRIMARY KEY
) WITHOUT ROWID;
INSERT INTO database_identity VALUES (lower(hex(randomblob(16))));

-- Never changed, only added to. The first refusal of a limit, subject and period, and each threshold that was reached in it. used and max are
-- in units of the meter, of money in nano-dollars. A rate has no period: windows of its own length, of a minute at least, stand for them.
CREATE TABLE limit_events (
    id INTEGER PRIMARY KEY,
    change_seq INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('refusal', 'threshold')),
    limit_name TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('deny', 'shadow', 'warn')),
    reason TEXT,
    tenant TEXT,
    user_id TEXT,
    subject TEXT NOT NULL,
    meter TEXT NOT NULL,
    used INTEGER NOT NULL,
    max INTEGER NOT NULL,
    threshold REAL,
    period_started_at TEXT NOT NULL,
    period_ends_at TEXT
);
-- So that instances which see the same write it once.
CREATE UNIQUE INDEX limit_events_once ON limit_events (limit_name, subject, period_started_at, kind, COALESCE(threshold, 0));
CREATE INDEX limit_events_by_change ON limit_events (change_seq);
