-- Events out (outbox) and messages in (inbox).
-- `position` is taken while the row of the consultation is locked, so it rises within a
-- consultation in the order of what happened; across consultations it may be seen out of order.

CREATE TABLE outbox (
    position   INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id         BLOB    NOT NULL UNIQUE,
    clinic     TEXT    NOT NULL,
    session_id BLOB,
    event_type TEXT    NOT NULL CHECK (length(event_type) <= 100),
    data       TEXT    NOT NULL,
    created_at TEXT    NOT NULL,
    seq        INTEGER UNIQUE
) STRICT;

CREATE INDEX idx_outbox_created ON outbox (created_at);

-- One row per event and sink that was configured when it happened.
CREATE TABLE outbox_deliveries (
    position   INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    event_id   BLOB    NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    sink       TEXT    NOT NULL CHECK (length(sink) <= 100),
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_at    TEXT    NOT NULL,
    sent_at    TEXT,
    last_error TEXT,
    CONSTRAINT unique_delivery UNIQUE (event_id, sink)
) STRICT;

CREATE INDEX idx_deliveries_unsent ON outbox_deliveries (sink, position) WHERE sent_at IS NULL;

-- Who may send for a sink now.
CREATE TABLE relay_leases (
    sink       TEXT    NOT NULL PRIMARY KEY,
    holder     BLOB    NOT NULL,
    held_until TEXT    NOT NULL
) STRICT;

-- Messages that have taken effect; a second one with the same id does nothing.
CREATE TABLE inbox (
    source      TEXT    NOT NULL CHECK (length(source) <= 100),
    message_id  TEXT    NOT NULL CHECK (length(message_id) <= 200),
    received_at TEXT    NOT NULL,
    CONSTRAINT unique_inbox PRIMARY KEY (source, message_id)
) STRICT;

CREATE INDEX idx_inbox_received ON inbox (received_at);

-- How far a partition of a log has been read.
CREATE TABLE inbox_offsets (
    source        TEXT    NOT NULL CHECK (length(source) <= 100),
    log_partition INTEGER NOT NULL,
    next_offset   INTEGER NOT NULL,
    updated_at    TEXT    NOT NULL,
    CONSTRAINT unique_offset PRIMARY KEY (source, log_partition)
) STRICT;
