-- Times are in milliseconds (*_ts). Secrets are kept as hashes only. Addresses are stored normalised.

CREATE TABLE counters (
    -- Numbers that are never used twice, not even after a row was deleted.
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE accounts (
    user_id TEXT NOT NULL PRIMARY KEY,
    created_ts BIGINT NOT NULL
);

CREATE TABLE access_tokens (
    token_hash TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
    created_ts BIGINT NOT NULL,
    -- Noted once a day.
    last_used_ts BIGINT NOT NULL
);
CREATE INDEX access_tokens_by_user ON access_tokens (user_id);

CREATE TABLE accepted_terms (
    user_id TEXT NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
    policy_id TEXT NOT NULL,
    version TEXT NOT NULL,
    -- The language that was shown.
    url TEXT NOT NULL,
    accepted_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, policy_id, version)
);

CREATE TABLE validation_sessions (
    sid TEXT NOT NULL PRIMARY KEY,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    client_secret_hash TEXT NOT NULL,
    -- The highest attempt for which a message was handed over.
    send_attempt BIGINT NOT NULL,
    next_link TEXT,
    changed_ts BIGINT NOT NULL,
    validated_ts BIGINT
);
CREATE INDEX validation_sessions_by_secret ON validation_sessions (client_secret_hash, address, medium);
CREATE INDEX validation_sessions_by_change ON validation_sessions (changed_ts);

CREATE TABLE validation_tokens (
    sid TEXT NOT NULL REFERENCES validation_sessions (sid) ON DELETE CASCADE,
    -- 1, 2, 3 … within the session: the newest few are valid.
    number BIGINT NOT NULL,
    token_hash TEXT NOT NULL,
    -- When it proved the address; a link that is opened again proves nothing new.
    used_ts BIGINT,
    PRIMARY KEY (sid, number)
);

CREATE TABLE associations (
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    mxid TEXT NOT NULL,
    ts BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    origin_server TEXT NOT NULL,
    origin_id BIGINT NOT NULL,
    PRIMARY KEY (medium, address)
);
CREATE INDEX associations_by_mxid ON associations (mxid);

CREATE TABLE peppers (
    pepper_id BIGINT NOT NULL PRIMARY KEY,
    pepper TEXT NOT NULL UNIQUE,
    created_ts BIGINT NOT NULL,
    -- NULL while its hashes are being made.
    current_since_ts BIGINT,
    -- NULL until another one took its place.
    retired_ts BIGINT
);

CREATE TABLE ephemeral_keys (
    -- Public keys of invitations, in hexadecimal: they are asked for in either base64 alphabet.
    public_key TEXT NOT NULL PRIMARY KEY,
    expires_ts BIGINT NOT NULL
);

CREATE TABLE outbox (
    outbox_id BIGINT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    destination TEXT NOT NULL,
    -- The same thing is written down once, however often its cause is repeated.
    idempotency_key TEXT NOT NULL UNIQUE,
    payload TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'dead')),
    created_ts BIGINT NOT NULL,
    due_ts BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    last_error TEXT
);
CREATE INDEX outbox_by_state ON outbox (kind, state, created_ts);
CREATE INDEX outbox_by_destination ON outbox (kind, destination, state, due_ts, outbox_id);

CREATE TABLE outbox_destinations (
    kind TEXT NOT NULL,
    destination TEXT NOT NULL,
    -- When there is something to do for it; NULL when there is not. Derived from the rows and retry_ts.
    next_due_ts BIGINT,
    -- A process that died does not hold the destination up longer than this. One thing at a time for each.
    lease_until_ts BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    failing_since_ts BIGINT,
    retry_ts BIGINT NOT NULL,
    -- What worked before, for onbind an HTTP method.
    method TEXT,
    PRIMARY KEY (kind, destination)
);
CREATE INDEX outbox_destinations_due ON outbox_destinations (kind, next_due_ts);
