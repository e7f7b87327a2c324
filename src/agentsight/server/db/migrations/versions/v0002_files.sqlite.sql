-- What files need beyond the first schema; v0002_files.py adds what takes Python.

ALTER TABLE blobs ADD COLUMN width integer;
ALTER TABLE blobs ADD COLUMN height integer;
ALTER TABLE blobs ADD COLUMN pages integer;
ALTER TABLE blobs ADD COLUMN seconds real;
ALTER TABLE blobs ADD COLUMN scan text NOT NULL DEFAULT 'not_scanned' CHECK (scan IN ('not_scanned', 'clean', 'infected', 'failed'));
ALTER TABLE blobs ADD COLUMN scan_detail text;
ALTER TABLE blobs ADD COLUMN text_state text NOT NULL DEFAULT 'waiting' CHECK (text_state IN ('waiting', 'stored', 'none', 'failed'));
ALTER TABLE blobs ADD COLUMN facts text;
ALTER TABLE blobs ADD COLUMN erased_by text;
ALTER TABLE conversations ADD COLUMN erased_by text;
ALTER TABLE attachments ADD COLUMN facts text;
ALTER TABLE attachments ADD COLUMN filename_folded text;
DROP INDEX attachments_in_order;
CREATE INDEX attachments_in_order ON attachments (
    agent_id, conversation_id, sent_at, message_id, id, deleted_at, sender, uid, type, filename,
    mime_type, size_bytes, sha256, facts
);
-- What stands behind deleted_at lets counts and searches in names read the index alone.
CREATE INDEX attachments_by_time ON attachments (
    agent_id, sent_at DESC, id DESC, deleted_at, conversation_id, filename_folded
);
CREATE INDEX attachments_by_type
    ON attachments (agent_id, type, sent_at DESC, id DESC, deleted_at, conversation_id);
CREATE INDEX attachments_deleted ON attachments (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX blobs_by_content ON blobs (sha256);
CREATE INDEX blobs_going ON blobs (agent_id, id) WHERE state = 'deleting';
CREATE INDEX conversations_deleted ON conversations (deleted_at) WHERE deleted_at IS NOT NULL;
-- Removing a message asks whether a usage refers to it.
CREATE INDEX usages_by_message ON usages (agent_id, message_id);
CREATE INDEX conversations_going ON conversations (erased_by, agent_id, id)
    WHERE erased_by IS NOT NULL;

-- Files of any size on their way in, or here and waiting for the message that refers to them. `parts`
-- is the store's own note of where to go on; `lease` is held by the one writer until `leased_until`.
-- `wanted_at`: a newer request asks the writer to let go. `offered_until`: kept for the client that was
-- told to go on with it.
-- A stored upload keeps its blob from being removed until `expires_at`.
CREATE TABLE uploads (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL REFERENCES agents (id),
    uid text NOT NULL,
    blob_id integer,
    blob_uid text NOT NULL,
    object_key text NOT NULL,
    filename text NOT NULL,
    declared_mime_type text,
    detected_mime_type text,
    size_bytes integer NOT NULL,
    sha256 text,
    offset_bytes integer NOT NULL DEFAULT 0,
    parts text NOT NULL DEFAULT '',
    state text NOT NULL CHECK (state IN ('pending', 'stored', 'expired')),
    lease text,
    leased_until integer,
    wanted_at integer,
    offered_until integer,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    expires_at integer NOT NULL,
    UNIQUE (agent_id, id),
    FOREIGN KEY (agent_id, blob_id) REFERENCES blobs (agent_id, id)
);
CREATE UNIQUE INDEX uploads_by_uid ON uploads (uid);
CREATE INDEX uploads_by_blob ON uploads (agent_id, blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX uploads_by_expiry ON uploads (state, expires_at);
CREATE INDEX uploads_by_hash ON uploads (agent_id, sha256) WHERE state = 'pending';

-- Work that waits for a blob: to examine it (facts and text), to scan it for malware. Whoever takes
-- a row moves `not_before` past the time it needs; a row that is done is deleted.
CREATE TABLE blob_jobs (
    agent_id integer NOT NULL,
    blob_id integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('examine', 'scan')),
    attempts integer NOT NULL DEFAULT 0,
    not_before integer NOT NULL,
    created_at integer NOT NULL,
    PRIMARY KEY (agent_id, blob_id, kind),
    FOREIGN KEY (agent_id, blob_id) REFERENCES blobs (agent_id, id)
);
CREATE INDEX blob_jobs_due ON blob_jobs (kind, not_before, agent_id, blob_id);

-- What was made of a blob: thumbnails, copies that browsers play. state 'none': it cannot be made.
CREATE TABLE derivatives (
    agent_id integer NOT NULL,
    blob_id integer NOT NULL,
    kind text NOT NULL,
    state text NOT NULL CHECK (state IN ('stored', 'none')),
    object_key text,
    mime_type text,
    sha256 text,
    size_bytes integer,
    width integer,
    height integer,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    PRIMARY KEY (agent_id, blob_id, kind),
    FOREIGN KEY (agent_id, blob_id) REFERENCES blobs (agent_id, id)
);

-- The text found in a blob, cut at a limit, as it is shown; its folded copy stands in the index.
CREATE TABLE blob_texts (
    agent_id integer NOT NULL,
    blob_id integer NOT NULL,
    content text NOT NULL,
    is_cut integer NOT NULL,
    created_at integer NOT NULL,
    PRIMARY KEY (agent_id, blob_id),
    FOREIGN KEY (agent_id, blob_id) REFERENCES blobs (agent_id, id)
);
-- rowid = agent_id * 2^40 + blob id. Contentless, as message_search is.
CREATE VIRTUAL TABLE attachment_search USING fts5 (
    content, content = '', tokenize = 'trigram', detail = none
);

-- Bytes that are blocked, wherever they are and whenever they come again.
CREATE TABLE quarantined_hashes (
    sha256 text NOT NULL PRIMARY KEY,
    reason text NOT NULL,
    created_at integer NOT NULL
);

-- Days after its last message that a conversation is kept; no environment: all that have no rule.
CREATE TABLE retention_rules (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL REFERENCES agents (id),
    environment_id integer,
    retention_days integer NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    UNIQUE (agent_id, id),
    FOREIGN KEY (agent_id, environment_id) REFERENCES environments (agent_id, id)
);
CREATE UNIQUE INDEX retention_rules_by_place
    ON retention_rules (agent_id, coalesce(environment_id, 0));

-- What was erased, as keyed hashes: drops what is sent again late, and is replayed by a restore.
-- agent_id is null where a whole organisation was meant.
CREATE TABLE erasures (
    id integer PRIMARY KEY AUTOINCREMENT,
    uid text NOT NULL UNIQUE,
    organisation_id integer NOT NULL REFERENCES organisations (id),
    agent_id integer REFERENCES agents (id),
    kind text NOT NULL CHECK (kind IN ('attachment', 'conversation', 'customer')),
    subject_hash text NOT NULL,
    erased_at integer NOT NULL,
    receipt_uid text NOT NULL
);
CREATE INDEX erasures_by_subject ON erasures (subject_hash);
CREATE INDEX erasures_by_receipt ON erasures (receipt_uid);

-- What each erasure did, in counts: nothing here says whose it was. `stage` is how far it has come;
-- `subject` is whom it looks for, only while it is looking.
CREATE TABLE receipts (
    id integer PRIMARY KEY AUTOINCREMENT,
    uid text NOT NULL UNIQUE,
    organisation_id integer NOT NULL REFERENCES organisations (id),
    agent_id integer REFERENCES agents (id),
    kind text NOT NULL,
    receipt text NOT NULL,
    stage text NOT NULL CHECK (stage IN
        ('finding', 'ledger', 'rows', 'objects', 'index', 'merging', 'scrub', 'complete')),
    subject text,
    created_at integer NOT NULL,
    updated_at integer NOT NULL
);
CREATE INDEX receipts_by_organisation ON receipts (organisation_id, id);
CREATE INDEX receipts_going ON receipts (id) WHERE stage <> 'complete';

-- Rows that are no more, so that whoever reads changes in order hears of it.
CREATE TABLE tombstones (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL REFERENCES agents (id),
    kind text NOT NULL CHECK (kind IN ('conversation', 'message', 'attachment', 'feedback')),
    row_id integer NOT NULL,
    uid text,
    created_at integer NOT NULL,
    UNIQUE (agent_id, id)
);
CREATE INDEX tombstones_by_row ON tombstones (agent_id, kind, row_id);

-- Bytes per agent, in shards so that writers do not queue behind one row: what is stored, and what
-- attachments refer to (the difference is what de-duplication saved).
CREATE TABLE storage_counts (
    agent_id integer NOT NULL REFERENCES agents (id),
    shard integer NOT NULL,
    n_blobs integer NOT NULL,
    stored_bytes integer NOT NULL,
    n_attachments integer NOT NULL,
    referenced_bytes integer NOT NULL,
    PRIMARY KEY (agent_id, shard)
);

-- Who read, shared, deleted and erased what. Only ever added to: triggers refuse the rest.
CREATE TABLE audit_log (
    id integer PRIMARY KEY AUTOINCREMENT,
    organisation_id integer NOT NULL,
    agent_id integer,
    principal text NOT NULL,
    principal_uid text,
    action text NOT NULL,
    subject_kind text NOT NULL,
    subject_uid text,
    n integer NOT NULL,
    detail text,
    created_at integer NOT NULL
);
CREATE INDEX audit_log_in_order ON audit_log (organisation_id, id);
CREATE INDEX audit_log_by_subject ON audit_log (subject_uid, id);
CREATE TRIGGER audit_log_is_not_changed BEFORE UPDATE ON audit_log
BEGIN
    SELECT raise(ABORT, 'the audit log is only ever added to');
END;
CREATE TRIGGER audit_log_is_not_deleted BEFORE DELETE ON audit_log
BEGIN
    SELECT raise(ABORT, 'the audit log is only ever added to');
END;

-- Every blob that is here is examined, and counted.
INSERT INTO blob_jobs (agent_id, blob_id, kind, attempts, not_before, created_at)
    SELECT agent_id, id, 'examine', 0, 0, created_at FROM blobs WHERE state = 'stored';
INSERT INTO storage_counts
    (agent_id, shard, n_blobs, stored_bytes, n_attachments, referenced_bytes)
    SELECT g.id, 0,
        (SELECT count(*) FROM blobs b WHERE b.agent_id = g.id AND b.state = 'stored'),
        (SELECT coalesce(sum(b.size_bytes), 0) FROM blobs b
            WHERE b.agent_id = g.id AND b.state = 'stored'),
        (SELECT count(*) FROM attachments a WHERE a.agent_id = g.id),
        (SELECT coalesce(sum(a.size_bytes), 0) FROM attachments a WHERE a.agent_id = g.id)
    FROM agents g;
