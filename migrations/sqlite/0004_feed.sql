-- change_seq is the position of a transaction, each of which raises position by one. cluster is of use in Postgres only. epoch goes
-- up when what was read may be otherwise now: the database was restored.
CREATE TABLE feed (
    epoch INTEGER NOT NULL,
    position INTEGER NOT NULL,
    cluster TEXT
);
INSERT INTO feed VALUES (1, 0, NULL);

-- How far each sink has come in each stream, usage or limits. holder is the instance that exports; it raises beat while it lives.
-- since: what started earlier is left out.
CREATE TABLE export_cursors (
    sink TEXT NOT NULL,
    stream TEXT NOT NULL CHECK (stream IN ('usage', 'limits')),
    position TEXT NOT NULL,
    since TEXT,
    holder TEXT,
    beat INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (sink, stream)
) WITHOUT ROWID;

-- Documents that a sink would never take. What they said is read again from the records when they are sent again.
CREATE TABLE export_dead_letters (
    sink TEXT NOT NULL,
    stream TEXT NOT NULL CHECK (stream IN ('usage', 'limits')),
    document TEXT NOT NULL,
    revision INTEGER NOT NULL,
    reason TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (sink, stream, document)
) WITHOUT ROWID;
