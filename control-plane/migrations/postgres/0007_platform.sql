-- Answers to requests that came with an Idempotency-Key, sealed, for a day.
-- Without an answer the request is still running, or its process has died: its lease tells.

CREATE TABLE idempotency_keys (
    clinic          TEXT NOT NULL,
    caller          TEXT NOT NULL,
    idempotency_key TEXT NOT NULL CHECK (length(idempotency_key) <= 255),
    request_hash    BYTEA NOT NULL,
    holder          UUID NOT NULL,
    held_until      TIMESTAMPTZ NOT NULL,
    answer          BYTEA,
    created_at      TIMESTAMPTZ NOT NULL,
    expires_at      TIMESTAMPTZ NOT NULL,
    CONSTRAINT unique_idempotency_key PRIMARY KEY (clinic, caller, idempotency_key)
);

CREATE INDEX idx_idempotency_expires ON idempotency_keys (expires_at);
