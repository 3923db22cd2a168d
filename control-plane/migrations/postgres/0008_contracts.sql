-- What people reported about a consultation's picture, sound or line.

CREATE TABLE issue_reports (
    id          UUID        NOT NULL PRIMARY KEY,
    clinic      TEXT        NOT NULL,
    session_id  UUID        NOT NULL REFERENCES consultation_sessions (id),
    user_id     TEXT        NOT NULL,
    issue_type  TEXT        NOT NULL CHECK (issue_type IN ('audio', 'video', 'connection', 'other')),
    description TEXT        NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL
);

CREATE INDEX idx_issue_reports_session ON issue_reports (session_id, created_at);
