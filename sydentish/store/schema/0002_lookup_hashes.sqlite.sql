-- The hot table of look-ups: its rows lie in the tree of the primary key itself, so that 10,000 hashes are
-- found in one pass. A pepper's hashes lie together.
CREATE TABLE lookup_hashes (
    pepper_id BIGINT NOT NULL REFERENCES peppers (pepper_id),
    hash TEXT NOT NULL,
    mxid TEXT NOT NULL,
    PRIMARY KEY (pepper_id, hash)
) WITHOUT ROWID;
