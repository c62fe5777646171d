-- One row: what is true of the registry as a whole.
CREATE TABLE registry_meta (
    id      SMALLINT PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL,
    key_id  BYTEA
);

INSERT INTO registry_meta (id, version) VALUES (1, 0);

-- Timestamps are microseconds since 1970. `settings` and `state` are JSON; `sealed` is encrypted.
CREATE TABLE endpoints (
    id         BYTEA PRIMARY KEY,
    tenant     TEXT NOT NULL,
    state      TEXT NOT NULL,
    settings   TEXT NOT NULL,
    sealed     BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE INDEX endpoints_by_tenant ON endpoints (tenant, id);

CREATE TABLE api_keys (
    id         BYTEA PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       BYTEA NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE audit (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
);
