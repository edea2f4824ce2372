-- What other servers have stated is given out with their own signature.
ALTER TABLE associations ADD COLUMN signed TEXT;

-- The statements of one server in their order: ours are what peers are sent.
CREATE INDEX associations_by_origin ON associations (origin_server, origin_id);

-- Keys that never leave this database.
CREATE TABLE local_keys (
    name TEXT NOT NULL PRIMARY KEY,
    key_hex TEXT NOT NULL
);

-- Addresses that belong to nobody any more, by what stays of them: so that an older statement which comes late
-- cannot bring one back.
CREATE TABLE erased_addresses (
    address_hmac TEXT NOT NULL PRIMARY KEY,
    ts BIGINT NOT NULL,
    origin_server TEXT NOT NULL,
    origin_id BIGINT NOT NULL
);
CREATE INDEX erased_addresses_by_origin ON erased_addresses (origin_server, origin_id);

-- Our own unbinds, until every peer has acknowledged them. With the last of them, the address is gone.
CREATE TABLE tombstones (
    origin_id BIGINT NOT NULL PRIMARY KEY,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    ts BIGINT NOT NULL,
    UNIQUE (medium, address)
);

CREATE TABLE peers (
    name TEXT NOT NULL PRIMARY KEY,
    url TEXT NOT NULL,
    -- Public keys by key ID, and a list: both as JSON.
    keys TEXT NOT NULL,
    certificate_names TEXT NOT NULL,
    -- Who has told of it. One that is no longer in the configuration is left alone, but not forgotten.
    source TEXT NOT NULL CHECK (source IN ('configuration', 'command', 'gone')),
    paused BIGINT NOT NULL DEFAULT 0,
    -- From when on statements wait for it.
    since_ts BIGINT NOT NULL,
    -- The highest of our statements that it has acknowledged, with all below it but those that are parked.
    acknowledged_id BIGINT NOT NULL DEFAULT 0,
    -- A process that died does not hold it up longer than this. One push at a time.
    lease_until_ts BIGINT NOT NULL DEFAULT 0,
    failures BIGINT NOT NULL DEFAULT 0,
    failing_since_ts BIGINT,
    retry_ts BIGINT NOT NULL DEFAULT 0,
    last_success_ts BIGINT,
    last_failure_ts BIGINT,
    last_failure TEXT,
    last_received_ts BIGINT
);

-- Statements that a peer has refused by name, while it took others.
CREATE TABLE parked_statements (
    peer TEXT NOT NULL REFERENCES peers (name) ON DELETE CASCADE,
    origin_id BIGINT NOT NULL,
    reason TEXT NOT NULL,
    parked_ts BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    retry_ts BIGINT NOT NULL,
    PRIMARY KEY (peer, origin_id)
);
CREATE INDEX parked_statements_by_id ON parked_statements (origin_id);
