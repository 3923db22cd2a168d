-- What people's connection checks found, under the code that they tell the clinic. Nothing of it says
-- whose it is.

CREATE TABLE connection_checks (
    code       TEXT NOT NULL PRIMARY KEY,
    check_id   BLOB NOT NULL UNIQUE,
    -- The clinic whose page it was; empty = no clinic was named.
    clinic     TEXT NOT NULL,
    report     TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;

CREATE INDEX idx_connection_checks_expiry ON connection_checks (expires_at);
