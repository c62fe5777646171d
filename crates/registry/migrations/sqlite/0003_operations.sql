-- What people and rules ask to be done with kept messages. Timestamps are microseconds since 1970; `filter` is JSON.
CREATE TABLE operations (
    id           BLOB PRIMARY KEY,
    -- Whoever asks again under the same name asked once.
    request_key  TEXT UNIQUE,
    place        TEXT NOT NULL,
    action       TEXT NOT NULL,
    filter       TEXT NOT NULL,
    pace         TEXT NOT NULL,
    actor        TEXT NOT NULL,
    why          TEXT NOT NULL,
    state        TEXT NOT NULL,
    expected     BIGINT NOT NULL,
    resolved     BIGINT NOT NULL,
    requested_at BIGINT NOT NULL,
    changed_at   BIGINT NOT NULL
);

CREATE INDEX operations_by_state ON operations (state, id);

-- Each message that an operation has dealt with: written after what follows from it is confirmed, and
-- before it is acknowledged.
CREATE TABLE operation_items (
    operation BLOB NOT NULL,
    message   TEXT NOT NULL,
    at        BIGINT NOT NULL,
    summary   TEXT NOT NULL,
    PRIMARY KEY (operation, message)
);
