-- Who began and ended it, interruptions, timers; lost connections and what was measured.
-- A column per statement: SQLite adds no more at once.

ALTER TABLE consultation_sessions ADD COLUMN started_by TEXT;
ALTER TABLE consultation_sessions ADD COLUMN ended_by TEXT;
ALTER TABLE consultation_sessions ADD COLUMN ended_by_role TEXT
    CHECK (ended_by_role IN ('patient', 'doctor', 'guest'));
ALTER TABLE consultation_sessions ADD COLUMN both_connected_at TIMESTAMPTZ;
ALTER TABLE consultation_sessions ADD COLUMN paused_at TIMESTAMPTZ;
ALTER TABLE consultation_sessions ADD COLUMN paused_seconds BIGINT NOT NULL DEFAULT 0;
ALTER TABLE consultation_sessions ADD COLUMN reopened_at TIMESTAMPTZ;
ALTER TABLE consultation_sessions ADD COLUMN quiet_since TIMESTAMPTZ;
ALTER TABLE consultation_sessions ADD COLUMN due_at TIMESTAMPTZ;

CREATE INDEX idx_sessions_due ON consultation_sessions (due_at) WHERE due_at IS NOT NULL;

ALTER TABLE session_participants ADD COLUMN lost_since TIMESTAMPTZ;
ALTER TABLE session_participants ADD COLUMN reconnect_attempts BIGINT NOT NULL DEFAULT 0;
ALTER TABLE session_participants ADD COLUMN connection_lost BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE session_participants ADD COLUMN measured_seconds BIGINT NOT NULL DEFAULT 0;
ALTER TABLE session_participants ADD COLUMN connection_score DOUBLE PRECISION;

-- What ran before timers were kept is looked at once, soon.
UPDATE consultation_sessions SET due_at = scheduled_start_time
    WHERE status IN ('SCHEDULED', 'WAITING', 'IN_PROGRESS', 'PAUSED');
