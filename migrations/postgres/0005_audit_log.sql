-- Never changed, only added to: what people did by hand, over HTTP or on the command line. before_act and after_act are JSON.
CREATE TABLE audit_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at TIMESTAMPTZ NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    tenant TEXT,
    user_id TEXT,
    object TEXT,
    reason TEXT,
    before_act TEXT,
    after_act TEXT
);
CREATE INDEX audit_log_by_account ON audit_log (tenant, user_id);
