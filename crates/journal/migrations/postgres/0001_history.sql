-- What the recorder knows of the journal: one row. Its change begins every transaction that records.
CREATE TABLE journal_state (
    id          BIGINT PRIMARY KEY CHECK (id = 1),
    next_offset BIGINT NOT NULL,
    next_seq    BIGINT NOT NULL,
    written_at  BIGINT NOT NULL
);

INSERT INTO journal_state (id, next_offset, next_seq, written_at) VALUES (1, 0, 1, 0);

-- Every writer of the journal, and the last batch of it that was recorded. Moments are microseconds since 1970.
CREATE TABLE writers (
    name       TEXT NOT NULL,
    epoch      BIGINT NOT NULL,
    sequence   BIGINT NOT NULL,
    last_at    BIGINT NOT NULL,
    state      TEXT NOT NULL,
    PRIMARY KEY (name, epoch)
);

-- What is missing from the history, and between which moments it happened.
CREATE TABLE gaps (
    seq            BIGINT PRIMARY KEY,
    writer         TEXT NOT NULL,
    epoch          BIGINT NOT NULL,
    kind           TEXT NOT NULL,
    missing        BIGINT,
    from_at        BIGINT NOT NULL,
    to_at          BIGINT NOT NULL,
    hides_outcomes BIGINT NOT NULL
);

CREATE INDEX gaps_by_end ON gaps (hides_outcomes, to_at);

-- `feed` is the place in the tenant's feed. It is empty while only a delivery of the event is known.
CREATE TABLE events (
    seq           BIGINT PRIMARY KEY,
    feed          BIGINT,
    tenant        TEXT NOT NULL,
    source        TEXT NOT NULL,
    id            TEXT NOT NULL,
    event_type    TEXT NOT NULL,
    is_complete   BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    subject       TEXT,
    time          TEXT,
    content_type  TEXT,
    data_schema   TEXT,
    extensions    TEXT NOT NULL,
    data          BYTEA,
    data_left_out BIGINT NOT NULL,
    trace_id      TEXT
);

CREATE UNIQUE INDEX events_by_id ON events (id, tenant, source);
CREATE INDEX events_by_feed ON events (tenant, feed);
CREATE INDEX events_without_feed ON events (at) WHERE feed IS NULL;
CREATE INDEX events_by_time ON events (at, seq);
CREATE INDEX events_by_tenant ON events (tenant, at, seq);
CREATE INDEX events_by_type ON events (tenant, event_type, at, seq);

-- Deliveries whose `state` is `dead_lettered` are the index of the queue of dead letters.
CREATE TABLE deliveries (
    id              BYTEA NOT NULL PRIMARY KEY,
    event_seq       BIGINT NOT NULL,
    endpoint        BYTEA NOT NULL,
    tenant          TEXT NOT NULL,
    event_type      TEXT NOT NULL,
    at              BIGINT NOT NULL,
    state           TEXT NOT NULL,
    changed_at      BIGINT NOT NULL,
    due_at          BIGINT NOT NULL,
    is_told         BIGINT NOT NULL,
    replay          BIGINT NOT NULL,
    failed_attempts BIGINT NOT NULL,
    first_failed_at BIGINT,
    reason          TEXT,
    last_status     BIGINT,
    last_class      TEXT,
    last_error      TEXT
);

CREATE INDEX deliveries_by_event ON deliveries (event_seq);
CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint, state, at, event_seq);
CREATE INDEX deliveries_by_state ON deliveries (state, tenant, at, event_seq);

-- `class` is `success`, or why it failed. One partition a day, by `at`; the recorder makes and drops them.
CREATE TABLE attempts (
    seq         BIGINT NOT NULL,
    at          BIGINT NOT NULL,
    event_seq   BIGINT NOT NULL,
    delivery    BYTEA NOT NULL,
    endpoint    BYTEA NOT NULL,
    tenant      TEXT NOT NULL,
    event_type  TEXT NOT NULL,
    replay      BIGINT NOT NULL,
    number      BIGINT NOT NULL,
    took_micros BIGINT NOT NULL,
    class       TEXT NOT NULL,
    status      BIGINT,
    error       TEXT NOT NULL,
    state       TEXT NOT NULL
) PARTITION BY RANGE (at);

CREATE INDEX attempts_by_event ON attempts (event_seq);
CREATE INDEX attempts_by_class ON attempts (class, at, seq);
CREATE INDEX attempts_by_tenant ON attempts (tenant, class, at, seq);
CREATE INDEX attempts_by_type ON attempts (tenant, event_type, class, at, seq);
CREATE INDEX attempts_by_endpoint ON attempts (endpoint, class, at, seq);

-- How much was recorded of each day, counted from 1970, with an estimate of the bytes it takes.
CREATE TABLE days (
    day      BIGINT PRIMARY KEY,
    events   BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    bytes    BIGINT NOT NULL
);
