-- Chat: receipts, files and pictures, lines that the server itself writes.
-- SQLite cannot change a CHECK: the table of messages is written anew.

CREATE TABLE chat_attachments (
    id           BLOB    NOT NULL PRIMARY KEY,
    clinic       TEXT    NOT NULL,
    session_id   BLOB    NOT NULL REFERENCES consultation_sessions (id),
    uploaded_by  TEXT    NOT NULL,
    message_id   BLOB,
    file_name    TEXT    NOT NULL,
    mime_type    TEXT    NOT NULL,
    size_bytes   INTEGER NOT NULL CHECK (size_bytes > 0),
    width        INTEGER,
    height       INTEGER,
    sha256       BLOB    NOT NULL,
    created_at   TEXT    NOT NULL
) STRICT;

CREATE INDEX idx_chat_attachments_session ON chat_attachments (session_id);
CREATE INDEX idx_chat_attachments_unsent ON chat_attachments (created_at)
    WHERE message_id IS NULL;

CREATE TABLE chat_receipts (
    session_id         BLOB    NOT NULL REFERENCES consultation_sessions (id),
    user_id            TEXT    NOT NULL,
    delivered_sequence INTEGER NOT NULL DEFAULT 0,
    read_sequence      INTEGER NOT NULL DEFAULT 0,
    updated_at         TEXT    NOT NULL,
    PRIMARY KEY (session_id, user_id)
) STRICT;

CREATE TABLE chat_messages_new (
    id            BLOB    NOT NULL PRIMARY KEY,
    session_id    BLOB    NOT NULL REFERENCES consultation_sessions (id),
    sequence      INTEGER NOT NULL,
    sender_id     TEXT    NOT NULL,
    sender_name   TEXT    NOT NULL,
    sender_type   TEXT    NOT NULL
        CHECK (sender_type IN ('patient', 'doctor', 'guest', 'system')),
    message_type  TEXT    NOT NULL CHECK (message_type IN ('text', 'image', 'file', 'system')),
    content       TEXT    NOT NULL,
    client_id     TEXT,
    is_deleted    INTEGER NOT NULL DEFAULT 0 CHECK (is_deleted IN (0, 1)),
    created_at    TEXT    NOT NULL,
    updated_at    TEXT    NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('sent', 'delivered', 'read')),
    delivered_at  TEXT,
    read_at       TEXT,
    attachment_id BLOB    REFERENCES chat_attachments (id),
    system_event  TEXT,
    CONSTRAINT unique_message UNIQUE (session_id, sequence),
    CONSTRAINT unique_client_message UNIQUE (session_id, sender_id, client_id)
) STRICT;

INSERT INTO chat_messages_new (id, session_id, sequence, sender_id, sender_name, sender_type,
    message_type, content, client_id, is_deleted, created_at, updated_at, status)
SELECT id, session_id, sequence, sender_id, sender_name, sender_type,
    message_type, content, client_id, is_deleted, created_at, created_at, 'sent'
FROM chat_messages;

DROP TABLE chat_messages;
ALTER TABLE chat_messages_new RENAME TO chat_messages;

CREATE INDEX session_messages_desc ON chat_messages (session_id, created_at DESC);
CREATE INDEX idx_chat_messages_created ON chat_messages (created_at);
