-- Invitations of addresses that have no user yet.
CREATE TABLE invitations (
    token TEXT NOT NULL PRIMARY KEY,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    room_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL,
    -- The row that takes it to a homeserver, once the address is bound; delivered or dropped, that takes the
    -- invitation away with it. NULL while it waits for somebody to bind the address.
    outbox_id BIGINT REFERENCES outbox (outbox_id) ON DELETE CASCADE
);

CREATE INDEX invitations_by_address ON invitations (medium, address);
CREATE INDEX invitations_by_outbox ON invitations (outbox_id);
CREATE INDEX invitations_by_expiry ON invitations (expires_ts);

-- Whose invitation a key accepts. It is kept apart from the invitation, and as long as the key is valid: the link of
-- the mail works also after the homeserver was told of the invitation.
ALTER TABLE ephemeral_keys ADD COLUMN token_hash TEXT;
ALTER TABLE ephemeral_keys ADD COLUMN sender TEXT;

CREATE INDEX ephemeral_keys_by_token ON ephemeral_keys (token_hash);
CREATE INDEX ephemeral_keys_by_expiry ON ephemeral_keys (expires_ts);

-- How often something else was tried while this token was one that could be guessed.
ALTER TABLE validation_tokens ADD COLUMN wrong_guesses BIGINT NOT NULL DEFAULT 0;

-- Budgets: token buckets, each as the time at which it is full again. A full one has no row.
CREATE TABLE budgets (
    budget TEXT NOT NULL,
    -- Whose bucket it is, as a hash: nobody's address or source stands here.
    key_hash TEXT NOT NULL,
    full_ts BIGINT NOT NULL,
    PRIMARY KEY (budget, key_hash)
);

CREATE INDEX budgets_by_time ON budgets (full_ts);
