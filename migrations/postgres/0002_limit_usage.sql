-- What was used of a quota by one subject in one period: the sum over the usage records, moved in the transaction that moves them.
-- The key is a hash of limit, subject and period; version goes up with every change.
CREATE TABLE limit_usage (
    key TEXT NOT NULL PRIMARY KEY,
    limit_name TEXT NOT NULL,
    subject TEXT NOT NULL,
    period_started_at timestamptz NOT NULL,
    period_ends_at timestamptz,
    used bigint NOT NULL,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX limit_usage_by_limit ON limit_usage (limit_name, used);

-- Names this database among those that share limits.
CREATE TABLE database_identity (
    id TEXT NOT NULL PRIMARY KEY
);
INSERT INTO database_identity VALUES (replace(gen_random_uuid()::text, '-', ''));
