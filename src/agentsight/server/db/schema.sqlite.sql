-- The whole schema as one script: what an empty SQLite database is made from.
-- A test proves that it equals all migrations.

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO alembic_version (version_num) VALUES ('0001');

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
    UNIQUE (agent_id, id),
    UNIQUE (agent_id, object_key)
);
CREATE UNIQUE INDEX blobs_by_sha256 ON blobs (agent_id, sha256) WHERE state = 'stored';

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
    UNIQUE (agent_id, id),
    FOREIGN KEY (agent_id, conversation_id) REFERENCES conversations (agent_id, id),
    FOREIGN KEY (agent_id, message_id) REFERENCES messages (agent_id, id),
    FOREIGN KEY (agent_id, blob_id) REFERENCES blobs (agent_id, id)
);
CREATE INDEX attachments_in_order ON attachments (
    agent_id, conversation_id, sent_at, message_id, id, deleted_at, sender, uid, type, filename,
    mime_type, size_bytes, sha256
);
CREATE INDEX attachments_by_message ON attachments (agent_id, message_id, id);
CREATE INDEX attachments_by_blob ON attachments (agent_id, blob_id);
CREATE INDEX attachments_by_uid ON attachments (uid);
CREATE UNIQUE INDEX attachments_by_item_key ON attachments (agent_id, item_key)
    WHERE item_key IS NOT NULL;

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
