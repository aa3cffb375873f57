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

-- Names this database among those that share limits.
CREATE TABLE database_identity (
    id TEXT NOT NULL PRIMARY KEY
) WITHOUT ROWID;
INSERT INTO database_identity VALUES (lower(hex(randomblob(16))));
