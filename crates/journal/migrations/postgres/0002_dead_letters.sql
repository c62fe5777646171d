-- The index of the queue of dead letters, in the order in which it is listed. Only a dead letter has a reason; the
-- condition names it rather than the state, because SQLite would use `deliveries_by_state` for that, and sort.
CREATE INDEX dead_letters_by_age ON deliveries (changed_at, id) WHERE reason IS NOT NULL;
