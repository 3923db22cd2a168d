-- The audit log with its chains, service keys, and what was revoked.
-- Rules shared with the SQLite folder: the same names in the same order, BIGINT numbers only,
-- words instead of enum types, JSON instead of arrays, times bound by the program.

-- Who did what to which consultation, from where, when, with what outcome. A row is written
-- without sequence and hash, in the transaction of the change that it tells of; the clinic's
-- sealer puts both in.
CREATE TABLE audit_log (
    id         UUID        NOT NULL PRIMARY KEY,
    clinic     TEXT        NOT NULL,
    at         TIMESTAMPTZ NOT NULL,
    actor_id   TEXT        NOT NULL,
    actor_kind TEXT        NOT NULL
        CHECK (actor_kind IN ('doctor', 'patient', 'guest', 'service', 'admin', 'auditor',
                              'link', 'operator', 'server')),
    credential TEXT,
    action     TEXT        NOT NULL,
    session_id UUID,
    subject    TEXT,
    listed     JSONB,
    outcome    TEXT        NOT NULL
        CHECK (outcome IN ('done', 'refused', 'not_found', 'rejected', 'failed')),
    address    TEXT,
    request_id TEXT,
    sequence   BIGINT,
    hash       BYTEA,
    CONSTRAINT sealed_once UNIQUE (clinic, sequence)
);

CREATE INDEX idx_audit_unsealed ON audit_log (clinic, at, id) WHERE sequence IS NULL;
CREATE INDEX idx_audit_session ON audit_log (clinic, session_id);
CREATE INDEX idx_audit_credential ON audit_log (credential, session_id)
    WHERE session_id IS NOT NULL;

-- The end of each clinic's chain, and who may add to it until when.
CREATE TABLE audit_chains (
    clinic      TEXT        NOT NULL PRIMARY KEY,
    sequence    BIGINT      NOT NULL,
    hash        BYTEA       NOT NULL,
    holder      UUID,
    lease_until TIMESTAMPTZ
);

-- What the chain's end was, under a key that is not in the database.
CREATE TABLE audit_anchors (
    clinic   TEXT        NOT NULL,
    sequence BIGINT      NOT NULL,
    hash     BYTEA       NOT NULL,
    at       TIMESTAMPTZ NOT NULL,
    key_name TEXT        NOT NULL,
    mac      BYTEA       NOT NULL,
    PRIMARY KEY (clinic, sequence)
);

-- Keys of other services. Only the hash of a key is stored.
CREATE TABLE service_keys (
    id         UUID        NOT NULL PRIMARY KEY,
    clinic     TEXT        NOT NULL,
    name       TEXT        NOT NULL,
    scopes     JSONB       NOT NULL,
    key_hash   BYTEA       NOT NULL,
    created_by TEXT        NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ,
    CONSTRAINT unique_key UNIQUE (key_hash)
);

CREATE INDEX idx_service_keys_clinic ON service_keys (clinic, created_at, id);

-- Credentials that are good no more; every instance asks for new ones several times a second.
CREATE TABLE revocations (
    credential TEXT        NOT NULL,
    clinic     TEXT        NOT NULL,
    user_id    TEXT,
    session_id UUID,
    at         TIMESTAMPTZ NOT NULL,
    forget_at  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (clinic, credential)
);

CREATE INDEX idx_revocations_at ON revocations (at);
