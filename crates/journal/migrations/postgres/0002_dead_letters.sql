-- The index of the queue of dead letters: what people group and list them by.
CREATE INDEX dead_letters_by_kind ON deliveries (tenant, endpoint, event_type, reason, changed_at)
    WHERE state = 'dead_lettered';
CREATE INDEX dead_letters_by_age ON deliveries (changed_at, id) WHERE state = 'dead_lettered';
