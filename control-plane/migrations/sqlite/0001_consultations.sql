-- Consultations, the people in them, what happened, chat and join links.
-- Rules shared with the PostgreSQL folder: the same names in the same order, BIGINT numbers only,
-- words instead of enum types, JSON instead of arrays, times bound by the program.
-- Here: STRICT tables, UUID = BLOB, time and JSON = TEXT, truth = INTEGER.

CREATE TABLE consultation_sessions (
    id                         BLOB    NOT NULL PRIMARY KEY,
    clinic                     TEXT    NOT NULL,
    appointment_id             TEXT,
    patient_id                 TEXT    NOT NULL,
    patient_name               TEXT    NOT NULL,
    doctor_id                  TEXT    NOT NULL,
    doctor_name                TEXT    NOT NULL,
    consultation_mode          TEXT    NOT NULL
        CHECK (consultation_mode IN ('VIDEO', 'AUDIO', 'CHAT')),
    scheduled_start_time       TEXT    NOT NULL,
    scheduled_duration_minutes INTEGER NOT NULL,
    room_name                  TEXT    NOT NULL CHECK (length(room_name) <= 100),
    room_sid                   TEXT    CHECK (length(room_sid) <= 100),
    status                     TEXT    NOT NULL
        CHECK (status IN ('SCHEDULED', 'WAITING', 'IN_PROGRESS', 'PAUSED',
                          'COMPLETED', 'CANCELLED', 'NO_SHOW', 'FAILED')),
    max_participants           INTEGER NOT NULL CHECK (max_participants >= 2),
    patient_joined_at          TEXT,
    doctor_joined_at           TEXT,
    actual_start_time          TEXT,
    actual_end_time            TEXT,
    total_duration_seconds     INTEGER,
    patient_connection_quality TEXT,
    doctor_connection_quality  TEXT,
    is_recorded                INTEGER NOT NULL DEFAULT 0 CHECK (is_recorded IN (0, 1)),
    recording_url              TEXT    CHECK (length(recording_url) <= 500),
    recording_duration_seconds INTEGER,
    end_reason                 TEXT    CHECK (length(end_reason) <= 100),
    notes                      TEXT,
    message_count              INTEGER NOT NULL DEFAULT 0,
    revision                   INTEGER NOT NULL,
    created_at                 TEXT    NOT NULL,
    updated_at                 TEXT    NOT NULL,
    CONSTRAINT valid_duration
        CHECK (scheduled_duration_minutes > 0 AND scheduled_duration_minutes <= 120)
) STRICT;

CREATE UNIQUE INDEX idx_sessions_appointment ON consultation_sessions (clinic, appointment_id);
CREATE UNIQUE INDEX idx_sessions_room ON consultation_sessions (room_name);
CREATE INDEX idx_sessions_patient ON consultation_sessions (clinic, patient_id);
CREATE INDEX idx_sessions_doctor ON consultation_sessions (clinic, doctor_id);
CREATE INDEX idx_sessions_status ON consultation_sessions (clinic, status);
CREATE INDEX idx_sessions_scheduled_time
    ON consultation_sessions (clinic, scheduled_start_time, id);

CREATE TABLE session_participants (
    id                  BLOB    NOT NULL PRIMARY KEY,
    session_id          BLOB    NOT NULL REFERENCES consultation_sessions (id),
    user_id             TEXT    NOT NULL,
    user_name           TEXT    NOT NULL,
    participant_type    TEXT    NOT NULL
        CHECK (participant_type IN ('patient', 'doctor', 'guest')),
    presence            TEXT    NOT NULL
        CHECK (presence IN ('waiting', 'admitted', 'connected', 'reconnecting', 'left')),
    admitted            INTEGER NOT NULL CHECK (admitted IN (0, 1)),
    arrival             INTEGER NOT NULL,
    waiting_since       TEXT,
    joined_at           TEXT,
    left_at             TEXT,
    rejoin_count        INTEGER NOT NULL DEFAULT 0,
    device_type         TEXT,
    browser             TEXT,
    os                  TEXT,
    avg_audio_level     REAL,
    avg_video_bitrate   INTEGER,
    packet_loss_percent REAL,
    created_at          TEXT    NOT NULL,
    CONSTRAINT unique_participant UNIQUE (session_id, user_id)
) STRICT;

CREATE TABLE session_events (
    id         BLOB NOT NULL PRIMARY KEY,
    session_id BLOB NOT NULL REFERENCES consultation_sessions (id),
    event_type TEXT NOT NULL CHECK (length(event_type) <= 50),
    user_id    TEXT,
    event_data TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;

CREATE INDEX idx_session_events_session ON session_events (session_id, created_at);
CREATE INDEX idx_session_events_type ON session_events (event_type);

CREATE TABLE chat_messages (
    id           BLOB    NOT NULL PRIMARY KEY,
    session_id   BLOB    NOT NULL REFERENCES consultation_sessions (id),
    sequence     INTEGER NOT NULL,
    sender_id    TEXT    NOT NULL,
    sender_name  TEXT    NOT NULL,
    sender_type  TEXT    NOT NULL CHECK (sender_type IN ('patient', 'doctor', 'guest')),
    message_type TEXT    NOT NULL CHECK (message_type IN ('text', 'image', 'file', 'system')),
    content      TEXT    NOT NULL,
    client_id    TEXT,
    is_deleted   INTEGER NOT NULL DEFAULT 0 CHECK (is_deleted IN (0, 1)),
    created_at   TEXT    NOT NULL,
    CONSTRAINT unique_message UNIQUE (session_id, sequence),
    CONSTRAINT unique_client_message UNIQUE (session_id, sender_id, client_id)
) STRICT;

CREATE TABLE join_links (
    id          BLOB NOT NULL PRIMARY KEY,
    clinic      TEXT NOT NULL,
    session_id  BLOB REFERENCES consultation_sessions (id),
    user_id     TEXT NOT NULL,
    user_name   TEXT NOT NULL,
    role        TEXT NOT NULL CHECK (role IN ('patient', 'doctor', 'guest')),
    secret_hash BLOB NOT NULL,
    created_by  TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    expires_at  TEXT NOT NULL,
    revoked_at  TEXT,
    CONSTRAINT unique_secret UNIQUE (secret_hash),
    CONSTRAINT only_doctors_have_a_day CHECK (role = 'doctor' OR session_id IS NOT NULL)
) STRICT;

CREATE INDEX idx_links_session ON join_links (session_id);
