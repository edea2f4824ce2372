-- What is not needed any more is found by its age, and what belongs to one address or person by its name.

-- When it last had a token that was used; it is noted when its tokens go.
ALTER TABLE accounts ADD COLUMN last_seen_ts BIGINT NOT NULL DEFAULT 0;
UPDATE accounts SET last_seen_ts = created_ts;

CREATE INDEX access_tokens_by_use ON access_tokens (last_used_ts);
CREATE INDEX accounts_by_sight ON accounts (last_seen_ts);
CREATE INDEX validation_sessions_by_address ON validation_sessions (medium, address);
CREATE INDEX invitations_by_sender ON invitations (sender);
