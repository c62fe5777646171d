-- Events that were committed and that RabbitMQ may not have yet. Any program may insert here, in the transaction that
-- the event belongs to; a relay publishes and deletes.
CREATE TABLE IF NOT EXISTS fanfare_outbox (
    position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- A CloudEvent in the form that the content type says: one JSON document, or one protobuf message.
    event BYTEA NOT NULL,
    content_type TEXT NOT NULL DEFAULT 'application/cloudevents+json',
    traceparent TEXT,
    tracestate TEXT,
    enqueued_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- Set when it is no event that Fanfare accepts. It stays until somebody mends or deletes it.
    refused_at TIMESTAMPTZ,
    refusal TEXT
);
-- What is refused must not slow down the search for what is not.
CREATE INDEX IF NOT EXISTS fanfare_outbox_waiting ON fanfare_outbox (position) WHERE refused_at IS NULL;
-- Wakes relays up when a transaction commits. Without it they notice at their next look. PostgreSQL lets transactions
-- that notify commit one after the other: a database with thousands of commits a second does better without.
CREATE OR REPLACE FUNCTION fanfare_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_notify(''fanfare_outbox'', ''''); RETURN NULL; END';
DROP TRIGGER IF EXISTS fanfare_outbox_arrived ON fanfare_outbox;
CREATE TRIGGER fanfare_outbox_arrived AFTER INSERT ON fanfare_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION fanfare_outbox_notify();
