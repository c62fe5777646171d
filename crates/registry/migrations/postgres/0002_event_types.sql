-- `definition` is JSON: description, schema, sample, and whether the schema is enforced.
CREATE TABLE event_types (
    name       TEXT PRIMARY KEY,
    definition TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
