-- A source that is rare would be looked for among all events.
CREATE INDEX events_by_source ON events (source, at, seq);
