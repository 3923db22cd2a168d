-- Chat: receipts, files and pictures, lines that the server itself writes.

CREATE TABLE chat_attachments (
    id           UUID        NOT NULL PRIMARY KEY,
    clinic       TEXT        NOT NULL,
    session_id   UUID        NOT NULL REFERENCES consultation_sessions (id),
    uploaded_by  TEXT        NOT NULL,
    message_id   UUID,
    file_name    TEXT        NOT NULL,
    mime_type    TEXT        NOT NULL,
    size_bytes   BIGINT      NOT NULL CHECK (size_bytes > 0),
    width        BIGINT,
    height       BIGINT,
    sha256       BYTEA       NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL
);

CREATE INDEX idx_chat_attachments_session ON chat_attachments (session_id);
CREATE INDEX idx_chat_attachments_unsent ON chat_attachments (created_at)
    WHERE message_id IS NULL;

CREATE TABLE chat_receipts (
    session_id         UUID        NOT NULL REFERENCES consultation_sessions (id),
    user_id            TEXT        NOT NULL,
    delivered_sequence BIGINT      NOT NULL DEFAULT 0,
    read_sequence      BIGINT      NOT NULL DEFAULT 0,
    updated_at         TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (session_id, user_id)
);

ALTER TABLE chat_messages DROP CONSTRAINT chat_messages_sender_type_check;
ALTER TABLE chat_messages ADD CONSTRAINT chat_messages_sender_type_check
    CHECK (sender_type IN ('patient', 'doctor', 'guest', 'system'));
ALTER TABLE chat_messages ADD COLUMN updated_at TIMESTAMPTZ;
UPDATE chat_messages SET updated_at = created_at;
ALTER TABLE chat_messages ALTER COLUMN updated_at SET NOT NULL;
ALTER TABLE chat_messages ADD COLUMN status TEXT NOT NULL DEFAULT 'sent'
    CHECK (status IN ('sent', 'delivered', 'read'));
ALTER TABLE chat_messages ALTER COLUMN status DROP DEFAULT;
ALTER TABLE chat_messages ADD COLUMN delivered_at TIMESTAMPTZ;
ALTER TABLE chat_messages ADD COLUMN read_at TIMESTAMPTZ;
ALTER TABLE chat_messages ADD COLUMN attachment_id UUID REFERENCES chat_attachments (id);
ALTER TABLE chat_messages ADD COLUMN system_event TEXT;

CREATE INDEX session_messages_desc ON chat_messages (session_id, created_at DESC);
CREATE INDEX idx_chat_messages_created ON chat_messages (created_at);
