-- The state of limits where the database is the store in which instances meet: what each has reported, as JSON. The key is the hash
-- of limit, subject and period; times are microseconds since 1970, and what is over may be deleted.
CREATE TABLE rate_limits (
    key TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    expires_at bigint,
    updated_at bigint NOT NULL
);
CREATE INDEX rate_limits_by_end ON rate_limits (expires_at) WHERE expires_at IS NOT NULL;

-- Instances that live.
CREATE TABLE limit_instances (
    instance TEXT NOT NULL PRIMARY KEY,
    expires_at bigint NOT NULL
);
