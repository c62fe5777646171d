-- One row: what is true of the registry as a whole.
CREATE TABLE registry_meta (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL,
    key_id  BLOB
);

INSERT INTO registry_meta (id, version) VALUES (1, 0);

-- Timestamps are microseconds since 1970. `settings` and `state` are JSON; `sealed` is encrypted.
CREATE TABLE endpoints (
    id         BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL,
    state      TEXT NOT NULL,
    settings   TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE INDEX endpoints_by_tenant ON endpoints (tenant, id);

CREATE TABLE api_keys (
    id         BLOB PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
);
