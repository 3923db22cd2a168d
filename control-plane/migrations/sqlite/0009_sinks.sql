-- Deliveries that are given up, and the numbers of events for readers over the API.

ALTER TABLE outbox_deliveries ADD COLUMN parked_at TEXT;

DROP INDEX idx_deliveries_unsent;

CREATE INDEX idx_deliveries_open ON outbox_deliveries (sink, position)
    WHERE sent_at IS NULL AND parked_at IS NULL;

CREATE INDEX idx_deliveries_later ON outbox_deliveries (sink, next_at)
    WHERE sent_at IS NULL AND parked_at IS NULL;

-- One row. Whoever holds it gives out the next numbers: they rise in the order in which events
-- become visible, and stay above those of events that are forgotten.
CREATE TABLE outbox_seq (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT;

INSERT INTO outbox_seq (one, last) VALUES (1, 0);

CREATE INDEX idx_outbox_unstamped ON outbox (position) WHERE seq IS NULL;

CREATE INDEX idx_outbox_replay ON outbox (clinic, seq);
