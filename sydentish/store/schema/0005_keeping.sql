-- What is not needed any more is found by its age, and what belongs to one address or person by its name.

-- When the user was last seen, as far as it is noted: see access_tokens.last_used_ts.
ALTER TABLE accounts ADD COLUMN last_seen_ts BIGINT NOT NULL DEFAULT 0;
UPDATE accounts SET last_seen_ts = created_ts;
UPDATE accounts SET last_seen_ts = (SELECT max(t.last_used_ts) FROM access_tokens AS t WHERE t.user_id = accounts.user_id)
WHERE EXISTS (
    SELECT 1 FROM access_tokens AS t WHERE t.user_id = accounts.user_id AND t.last_used_ts > accounts.created_ts
);

-- When the row was given up; NULL while it is pending. Of earlier ones only the time of the last try is known.
ALTER TABLE outbox ADD COLUMN died_ts BIGINT;
UPDATE outbox SET died_ts = due_ts WHERE state = 'dead';

CREATE INDEX access_tokens_by_use ON access_tokens (last_used_ts);
CREATE INDEX accounts_by_sight ON accounts (last_seen_ts, user_id);
CREATE INDEX validation_sessions_by_address ON validation_sessions (medium, address);
CREATE INDEX invitations_by_sender ON invitations (sender);
CREATE INDEX ephemeral_keys_by_sender ON ephemeral_keys (sender);
CREATE INDEX outbox_by_death ON outbox (died_ts);

-- After a backup was restored: the peers that are still to be asked for what was stated since it was made.
CREATE TABLE recalls (
    peer TEXT NOT NULL PRIMARY KEY REFERENCES peers (name) ON DELETE CASCADE,
    -- The highest numbers of statements, of our own and of the peer's, that were in the backup.
    own_id BIGINT NOT NULL,
    peers_id BIGINT NOT NULL
);

-- What was taken over from a Sydent, by a hash: taken over again, it does not bring back what has been deleted here
-- since.
CREATE TABLE taken_over (
    kind TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    PRIMARY KEY (kind, key_hash)
);
