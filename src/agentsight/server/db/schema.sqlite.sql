-- The whole schema as one script: what an empty SQLite database is made from.
-- A test proves that it equals all migrations.

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO alembic_version (version_num) VALUES ('0004');

-- Facts about this instance: its uid, and secrets made once when no setting gives them.
CREATE TABLE instance_values (
    name text NOT NULL PRIMARY KEY,
    value text NOT NULL,
    created_at integer NOT NULL
);

CREATE TABLE organisations (
    id integer PRIMARY KEY AUTOINCREMENT,
    uid text NOT NULL UNIQUE,
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL
);

CREATE TABLE clients (
    id integer PRIMARY KEY AUTOINCREMENT,
    uid text NOT NULL UNIQUE,
    organisation_id integer NOT NULL REFERENCES organisations (id),
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    deleted_at integer,
    UNIQUE (organisation_id, id)
);

CREATE TABLE agents (
    id integer PRIMARY KEY AUTOINCREMENT,
    uid text NOT NULL UNIQUE,
    organisation_id integer NOT NULL,
    client_id integer NOT NULL,
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    deleted_at integer,
    FOREIGN KEY (organisation_id, client_id) REFERENCES clients (organisation_id, id)
);
CREATE INDEX agents_by_client ON agents (organisation_id, client_id, id);

CREATE TABLE environments (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL REFERENCES agents (id),
    slug text NOT NULL,
    name text NOT NULL,
    is_production integer NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    UNIQUE (agent_id, id),
    UNIQUE (agent_id, slug)
);

-- A key is kept as the SHA-256 of its lower-cased text; `hint` is what a list may show of it.
CREATE TABLE api_keys (
    id integer PRIMARY KEY AUTOINCREMENT,
    uid text NOT NULL UNIQUE,
    agent_id integer NOT NULL REFERENCES agents (id),
    role text NOT NULL CHECK (role IN ('read', 'write', 'ingest')),
    name text NOT NULL,
    key_sha256 text NOT NULL UNIQUE,
    hint text NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    expires_at integer,
    revoked_at integer
);
CREATE INDEX api_keys_by_agent ON api_keys (agent_id, id);

-- `email` is folded for comparison; `client_id` narrows a user to one client.
CREATE TABLE users (
    id integer PRIMARY KEY AUTOINCREMENT,
    uid text NOT NULL UNIQUE,
    organisation_id integer NOT NULL REFERENCES organisations (id),
    client_id integer,
    email text NOT NULL UNIQUE,
    email_shown text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'member', 'viewer')),
    password_hash text,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    deleted_at integer,
    FOREIGN KEY (organisation_id, client_id) REFERENCES clients (organisation_id, id)
);

-- One-time links (set a password); kept as SHA-256, used at most once.
CREATE TABLE user_tokens (
    id integer PRIMARY KEY AUTOINCREMENT,
    user_id integer NOT NULL REFERENCES users (id),
    purpose text NOT NULL CHECK (purpose IN ('set_password')),
    token_sha256 text NOT NULL UNIQUE,
    created_at integer NOT NULL,
    expires_at integer NOT NULL,
    used_at integer
);
CREATE INDEX user_tokens_by_user ON user_tokens (user_id, id);

-- The first row by id that is not retired signs; all that are not retired verify.
CREATE TABLE signing_keys (
    id integer PRIMARY KEY AUTOINCREMENT,
    key_id text NOT NULL UNIQUE,
    secret text NOT NULL,
    created_at integer NOT NULL,
    retired_at integer
);

-- n_messages counts all kinds but usage. The *_folded copies serve search without case.
-- erased_by: the receipt of the erasure that is removing it; nobody shall see it any more.
CREATE TABLE conversations (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL REFERENCES agents (id),
    uid text NOT NULL,
    conversation_id text NOT NULL,
    environment_id integer NOT NULL,
    name text,
    name_folded text,
    customer_id text,
    customer_id_folded text,
    customer_ip_address text,
    device text,
    source text,
    language text,
    metadata text,
    geo_country text,
    geo_city text,
    geo_timezone text,
    is_used integer NOT NULL DEFAULT 0,
    is_marked integer NOT NULL DEFAULT 0,
    n_messages integer NOT NULL DEFAULT 0,
    n_feedbacks integer NOT NULL DEFAULT 0,
    started_at integer NOT NULL,
    ended_at integer,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    deleted_at integer,
    erased_by text,
    UNIQUE (agent_id, id),
    UNIQUE (agent_id, conversation_id),
    FOREIGN KEY (agent_id, environment_id) REFERENCES environments (agent_id, id)
);
CREATE INDEX conversations_by_start
    ON conversations (agent_id, started_at DESC, id DESC, deleted_at);
-- deleted_at stands at the end of both so that counting reads the index alone.
CREATE INDEX conversations_by_customer
    ON conversations (agent_id, customer_id, started_at DESC, id DESC, deleted_at);
CREATE INDEX conversations_by_device
    ON conversations (agent_id, device, started_at DESC, id DESC, deleted_at);
CREATE INDEX conversations_by_language
    ON conversations (agent_id, language, started_at DESC, id DESC, deleted_at);
CREATE INDEX conversations_by_source
    ON conversations (agent_id, source, started_at DESC, id DESC, deleted_at);
CREATE INDEX conversations_by_address
    ON conversations (agent_id, customer_ip_address, started_at DESC, id DESC, deleted_at);
CREATE INDEX conversations_by_environment
    ON conversations (agent_id, environment_id, started_at DESC, id DESC, deleted_at);
CREATE INDEX conversations_marked ON conversations (agent_id, started_at DESC, id DESC, deleted_at)
    WHERE is_marked = 1;
CREATE INDEX conversations_by_uid ON conversations (uid);
CREATE INDEX conversations_deleted ON conversations (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX conversations_going ON conversations (erased_by, agent_id, id)
    WHERE erased_by IS NOT NULL;

-- Live and deleted conversations per agent, in shards so that writers do not queue behind one row.
CREATE TABLE conversation_counts (
    agent_id integer NOT NULL REFERENCES agents (id),
    shard integer NOT NULL,
    n_live integer NOT NULL,
    n_deleted integer NOT NULL,
    PRIMARY KEY (agent_id, shard)
);

CREATE TABLE messages (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL,
    conversation_id integer NOT NULL,
    uid text NOT NULL,
    item_key text,
    external_id text,
    kind text NOT NULL CHECK (kind IN ('text', 'action', 'button', 'attachments', 'usage')),
    sender text NOT NULL CHECK (sender IN ('end_user', 'agent', 'system')),
    author text,
    content text NOT NULL,
    metadata text,
    timestamp integer NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    deleted_at integer,
    UNIQUE (agent_id, id),
    FOREIGN KEY (agent_id, conversation_id) REFERENCES conversations (agent_id, id)
);
CREATE INDEX messages_in_order ON messages (agent_id, conversation_id, timestamp, id);
CREATE UNIQUE INDEX messages_by_item_key ON messages (agent_id, item_key)
    WHERE item_key IS NOT NULL;
CREATE UNIQUE INDEX messages_by_external_id ON messages (agent_id, conversation_id, external_id)
    WHERE external_id IS NOT NULL;

-- Times typed by hand that are no times stay as they came, in *_text.
CREATE TABLE actions (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL,
    message_id integer NOT NULL,
    name text NOT NULL,
    name_folded text NOT NULL,
    started_at integer,
    started_at_text text,
    ended_at integer,
    ended_at_text text,
    duration_ms real,
    tools_used text,
    response text,
    error_message text,
    metadata text,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    UNIQUE (agent_id, id),
    FOREIGN KEY (agent_id, message_id) REFERENCES messages (agent_id, id)
);
CREATE INDEX actions_by_message ON actions (agent_id, message_id);
CREATE INDEX actions_by_name ON actions (agent_id, name_folded, message_id);

CREATE TABLE buttons (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL,
    message_id integer NOT NULL,
    button_event text NOT NULL,
    label text NOT NULL,
    value text NOT NULL,
    metadata text,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    UNIQUE (agent_id, id),
    FOREIGN KEY (agent_id, message_id) REFERENCES messages (agent_id, id)
);
CREATE INDEX buttons_by_message ON buttons (agent_id, message_id);

-- basis 'unknown': a published client's running totals, kept as they came and never summed;
-- basis 'delta': what was used since the last send.
CREATE TABLE usages (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL,
    conversation_id integer NOT NULL,
    message_id integer NOT NULL,
    item_key text,
    basis text NOT NULL CHECK (basis IN ('unknown', 'delta')),
    model text,
    prompt_tokens integer,
    completion_tokens integer,
    total_tokens integer,
    embedding_tokens integer,
    timestamp integer NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    UNIQUE (agent_id, id),
    FOREIGN KEY (agent_id, message_id) REFERENCES messages (agent_id, id),
    FOREIGN KEY (agent_id, conversation_id) REFERENCES conversations (agent_id, id)
);
CREATE INDEX usages_by_conversation ON usages (agent_id, conversation_id, id);
-- Removing a message asks whether a usage refers to it.
CREATE INDEX usages_by_message ON usages (agent_id, message_id);
CREATE UNIQUE INDEX usages_by_item_key ON usages (agent_id, item_key) WHERE item_key IS NOT NULL;

-- Bytes, once per agent. A blob goes in three steps: deleting, the object removed, gone.
CREATE TABLE blobs (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL REFERENCES agents (id),
    uid text NOT NULL,
    object_key text NOT NULL,
    sha256 text NOT NULL,
    size_bytes integer NOT NULL,
    state text NOT NULL CHECK (state IN ('stored', 'deleting', 'gone')),
    detected_mime_type text,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    width integer,
    height integer,
    pages integer,
    seconds real,
    scan text NOT NULL DEFAULT 'not_scanned'
        CHECK (scan IN ('not_scanned', 'clean', 'infected', 'failed')),
    scan_detail text,
    text_state text NOT NULL DEFAULT 'waiting'
        CHECK (text_state IN ('waiting', 'stored', 'none', 'failed')),
    facts text,
    erased_by text,
    UNIQUE (agent_id, id),
    UNIQUE (agent_id, object_key)
);
CREATE UNIQUE INDEX blobs_by_sha256 ON blobs (agent_id, sha256) WHERE state = 'stored';
CREATE INDEX blobs_by_content ON blobs (sha256);
CREATE INDEX blobs_going ON blobs (agent_id, id) WHERE state = 'deleting';

-- A reference: this message, this name, that blob. declared_mime_type is the sender's word,
-- mime_type what we make of it. sender, sent_at, size_bytes and sha256 are copies of what never
-- changes in the message and the blob, so that the one call reads one range of one index.
CREATE TABLE attachments (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL,
    conversation_id integer NOT NULL,
    message_id integer NOT NULL,
    blob_id integer NOT NULL,
    uid text NOT NULL,
    item_key text,
    type text NOT NULL CHECK (type IN ('image', 'document', 'text', 'audio', 'video')),
    filename text NOT NULL,
    declared_mime_type text,
    mime_type text NOT NULL,
    sender text NOT NULL,
    sent_at integer NOT NULL,
    size_bytes integer NOT NULL,
    sha256 text NOT NULL,
    metadata text,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    deleted_at integer,
    facts text,
    filename_folded text,
    UNIQUE (agent_id, id),
    FOREIGN KEY (agent_id, conversation_id) REFERENCES conversations (agent_id, id),
    FOREIGN KEY (agent_id, message_id) REFERENCES messages (agent_id, id),
    FOREIGN KEY (agent_id, blob_id) REFERENCES blobs (agent_id, id)
);
CREATE INDEX attachments_in_order ON attachments (
    agent_id, conversation_id, sent_at, message_id, id, deleted_at, sender, uid, type, filename,
    mime_type, size_bytes, sha256, facts
);
CREATE INDEX attachments_by_message ON attachments (agent_id, message_id, id);
CREATE INDEX attachments_by_blob ON attachments (agent_id, blob_id);
CREATE INDEX attachments_by_uid ON attachments (uid);
CREATE UNIQUE INDEX attachments_by_item_key ON attachments (agent_id, item_key)
    WHERE item_key IS NOT NULL;
-- What stands behind deleted_at lets counts and searches in names read the index alone.
CREATE INDEX attachments_by_time ON attachments (
    agent_id, sent_at DESC, id DESC, deleted_at, conversation_id, filename_folded
);
CREATE INDEX attachments_by_type
    ON attachments (agent_id, type, sent_at DESC, id DESC, deleted_at, conversation_id);
CREATE INDEX attachments_deleted ON attachments (deleted_at) WHERE deleted_at IS NOT NULL;
-- rowid = agent_id * 2^40 + attachment id. Contentless, as message_search is.
CREATE VIRTUAL TABLE filename_search USING fts5 (
    content, content = '', tokenize = 'trigram', detail = none
);

CREATE TABLE feedbacks (
    id integer PRIMARY KEY AUTOINCREMENT,
    agent_id integer NOT NULL,
    conversation_id integer NOT NULL,
    message_id integer,
    item_key text,
    sentiment text NOT NULL CHECK (sentiment IN ('positive', 'neutral', 'negative')),
    source text NOT NULL CHECK (source IN ('customer', 'platform')),
    comment text,
    metadata text,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    deleted_at integer,
    UNIQUE (agent_id, id),
    FOREIGN KEY (agent_id, conversation_id) REFERENCES conversations (agent_id, id)
);
CREATE INDEX feedbacks_by_conversation ON feedbacks (agent_id, conversation_id, id);
CREATE INDEX feedbacks_by_sentiment ON feedbacks (agent_id, sentiment, conversation_id);
CREATE UNIQUE INDEX feedbacks_by_item_key ON feedbacks (agent_id, item_key)
    WHERE item_key IS NOT NULL;

-- Messages that the search index does not hold yet. A search scans these and asks the index for the
-- rest; a background step moves them over in large strides, in one transaction with the index.
CREATE TABLE search_queue (
    agent_id integer NOT NULL,
    message_id integer NOT NULL,
    content_folded text NOT NULL,
    PRIMARY KEY (agent_id, message_id)
) WITHOUT ROWID;
-- rowid = agent_id * 2^40 + message id, so that one agent's messages are one range of the index.
-- Contentless: the text stands in `messages` only. Candidates are checked against it.
CREATE VIRTUAL TABLE message_search USING fts5 (
    content, content = '', tokenize = 'trigram', detail = none
);

-- Files of any size on their way in, or here and waiting for the message that refers to them. `parts`
-- is the store's own note of where to go on; `lease` is held by the one writer until `leased_until`.
-- `wanted_at`: a newer request asks the writer to let go. `offered_until`: kept for the client that was
-- told to go on with it.
-- A stored upload, and no other, names its blob, and keeps it from being removed until `expires_at`.
-- One that is over keeps its uid and says "expired"; since `expires_at`.
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
CREATE INDEX uploads_by_blob ON uploads (agent_id, blob_id, created_at, expires_at)
    WHERE blob_id IS NOT NULL;
CREATE INDEX uploads_by_expiry ON uploads (state, expires_at);
CREATE INDEX uploads_by_hash ON uploads (agent_id, sha256) WHERE state = 'pending';
-- What an agent's unfinished uploads are and may bring: counted at every announcement.
CREATE INDEX uploads_unfinished ON uploads
    (agent_id, expires_at, leased_until, offset_bytes, size_bytes, state) WHERE state = 'pending';
-- The same bytes announced again under the same name and type.
CREATE INDEX uploads_by_name ON uploads
    (agent_id, blob_id, filename, coalesce(declared_mime_type, '')) WHERE state = 'stored';

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
-- Agents take turns: the next agent's longest waiting.
CREATE INDEX blob_jobs_by_agent ON blob_jobs (kind, agent_id, not_before, blob_id);

-- Contents with so many attachments that the copies of their facts are changed in strides: those up to
-- `after_id` say what the blob does.
CREATE TABLE facts_queue (
    agent_id integer NOT NULL,
    blob_id integer NOT NULL,
    after_id integer NOT NULL,
    created_at integer NOT NULL,
    PRIMARY KEY (agent_id, blob_id),
    FOREIGN KEY (agent_id, blob_id) REFERENCES blobs (agent_id, id)
);

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
