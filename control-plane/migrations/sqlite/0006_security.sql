-- The audit log with its chains, service keys, and what was revoked.
-- Rules shared with the PostgreSQL folder: the same names in the same order, BIGINT numbers only,
-- words instead of enum types, JSON instead of arrays, times bound by the program.
-- Here: STRICT tables, UUID = BLOB, time and JSON = TEXT, truth = INTEGER.

-- Who did what to which consultation, from where, when, with what outcome. A row is written
-- without sequence and hash, in the transaction of the change that it tells of; the clinic's
-- sealer puts both in.
CREATE TABLE audit_log (
    id         BLOB    NOT NULL PRIMARY KEY,
    clinic     TEXT    NOT NULL,
    at         TEXT    NOT NULL,
    actor_id   TEXT    NOT NULL,
    actor_kind TEXT    NOT NULL
        CHECK (actor_kind IN ('doctor', 'patient', 'guest', 'service', 'admin', 'auditor',
                              'link', 'operator', 'server')),
    credential TEXT,
    action     TEXT    NOT NULL,
    session_id BLOB,
    subject    TEXT,
    listed     TEXT,
    outcome    TEXT    NOT NULL
        CHECK (outcome IN ('done', 'refused', 'not_found', 'rejected', 'failed')),
    address    TEXT,
    request_id TEXT,
    sequence   INTEGER,
    hash       BLOB,
    CONSTRAINT sealed_once UNIQUE (clinic, sequence)
) STRICT;

CREATE INDEX idx_audit_unsealed ON audit_log (clinic, at, id) WHERE sequence IS NULL;
CREATE INDEX idx_audit_session ON audit_log (clinic, session_id);
CREATE INDEX idx_audit_credential ON audit_log (credential, session_id)
    WHERE session_id IS NOT NULL;

-- The end of each clinic's chain, and who may add to it until when.
CREATE TABLE audit_chains (
    clinic      TEXT    NOT NULL PRIMARY KEY,
    sequence    INTEGER NOT NULL,
    hash        BLOB    NOT NULL,
    holder      BLOB,
    lease_until TEXT
) STRICT;

-- What the chain's end was, under a key that is not in the database.
CREATE TABLE audit_anchors (
    clinic   TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    hash     BLOB    NOT NULL,
    at       TEXT    NOT NULL,
    key_name TEXT    NOT NULL,
    mac      BLOB    NOT NULL,
    PRIMARY KEY (clinic, sequence)
) STRICT;

-- Keys of other services. Only the hash of a key is stored.
CREATE TABLE service_keys (
    id         BLOB    NOT NULL PRIMARY KEY,
    clinic     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,
    key_hash   BLOB    NOT NULL,
    created_by TEXT    NOT NULL,
    created_at TEXT    NOT NULL,
    expires_at TEXT,
    revoked_at TEXT,
    CONSTRAINT unique_key UNIQUE (key_hash)
) STRICT;

CREATE INDEX idx_service_keys_clinic ON service_keys (clinic, created_at, id);

-- Credentials that are good no more; every instance asks for new ones several times a second.
CREATE TABLE revocations (
    credential TEXT    NOT NULL,
    clinic     TEXT    NOT NULL,
    user_id    TEXT,
    session_id BLOB,
    at         TEXT    NOT NULL,
    forget_at  TEXT    NOT NULL,
    PRIMARY KEY (clinic, credential)
) STRICT;

CREATE INDEX idx_revocations_at ON revocations (at);
