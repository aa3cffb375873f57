-- Where change_seq counts from. It is the position of a transaction: position plus the id of the transaction in this cluster, which
-- cluster names. epoch goes up when what was read may be otherwise now: the database was restored, or a failover lost commits.
CREATE TABLE feed (
    epoch BIGINT NOT NULL,
    position BIGINT NOT NULL,
    cluster TEXT
);
INSERT INTO feed VALUES (1, 0, NULL);

-- How far each sink has come in each stream, usage or limits. holder is the instance that exports; it raises beat while it lives.
-- since: what started earlier is left out.
CREATE TABLE export_cursors (
    sink TEXT NOT NULL,
    stream TEXT NOT NULL CHECK (stream IN ('usage', 'limits')),
    position TEXT NOT NULL,
    since TIMESTAMPTZ,
    holder TEXT,
    beat BIGINT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (sink, stream)
);

-- Documents that a sink would never take. What they said is read again from the records when they are sent again.
CREATE TABLE export_dead_letters (
    sink TEXT NOT NULL,
    stream TEXT NOT NULL CHECK (stream IN ('usage', 'limits')),
    document TEXT NOT NULL,
    revision BIGINT NOT NULL,
    reason TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (sink, stream, document)
);
