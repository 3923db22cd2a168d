-- Prices, what consultations cost, payments and feedback.
-- Amounts are in the minor unit of their currency; `minor_digits` says how many digits that has.
-- A rate per minute may be finer: it is in ten-thousandths of the minor unit.

CREATE TABLE consultation_pricing (
    id                  BLOB    NOT NULL PRIMARY KEY,
    clinic              TEXT    NOT NULL,
    doctor_id           TEXT    NOT NULL,
    consultation_mode   TEXT    NOT NULL
        CHECK (consultation_mode IN ('VIDEO', 'AUDIO', 'CHAT')),
    pricing_type        TEXT    NOT NULL DEFAULT 'FLAT'
        CHECK (pricing_type IN ('FLAT', 'PER_MINUTE', 'TIERED')),
    flat_fee_minor      INTEGER CHECK (flat_fee_minor >= 0),
    per_minute_rate_e4  INTEGER CHECK (per_minute_rate_e4 >= 0),
    minimum_minutes     INTEGER NOT NULL DEFAULT 5 CHECK (minimum_minutes >= 0),
    tier_config         TEXT,
    currency            TEXT    NOT NULL DEFAULT 'INR' CHECK (length(currency) = 3),
    minor_digits        INTEGER NOT NULL DEFAULT 2 CHECK (minor_digits BETWEEN 0 AND 4),
    is_active           INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    updated_by          TEXT    NOT NULL,
    created_at          TEXT    NOT NULL,
    updated_at          TEXT    NOT NULL,
    CONSTRAINT unique_doctor_mode UNIQUE (clinic, doctor_id, consultation_mode)
) STRICT;

CREATE TABLE session_billing (
    session_id     BLOB    NOT NULL PRIMARY KEY REFERENCES consultation_sessions (id),
    clinic         TEXT    NOT NULL,
    billed_seconds INTEGER,
    pricing_type   TEXT,
    amount_minor   INTEGER,
    currency       TEXT,
    minor_digits   INTEGER,
    fixed_at       TEXT    NOT NULL,
    CONSTRAINT whole_amount CHECK ((amount_minor IS NULL) = (currency IS NULL)
                                   AND (amount_minor IS NULL) = (minor_digits IS NULL))
) STRICT;

CREATE TABLE appointment_payments (
    clinic         TEXT NOT NULL,
    appointment_id TEXT NOT NULL,
    status         TEXT NOT NULL CHECK (status IN ('PENDING', 'COMPLETED')),
    payment_id     TEXT,
    verified_by    TEXT,
    verified_at    TEXT,
    appointment    TEXT,
    created_at     TEXT NOT NULL,
    updated_at     TEXT NOT NULL,
    CONSTRAINT one_payment PRIMARY KEY (clinic, appointment_id),
    CONSTRAINT completed_by_somebody
        CHECK (status = 'PENDING' OR (payment_id IS NOT NULL AND verified_at IS NOT NULL))
) STRICT;

CREATE TABLE consultation_feedback (
    id                      BLOB    NOT NULL PRIMARY KEY,
    session_id              BLOB    NOT NULL REFERENCES consultation_sessions (id),
    clinic                  TEXT    NOT NULL,
    patient_id              TEXT    NOT NULL,
    doctor_id               TEXT    NOT NULL,
    overall_rating          INTEGER NOT NULL CHECK (overall_rating BETWEEN 1 AND 5),
    audio_quality_rating    INTEGER CHECK (audio_quality_rating BETWEEN 1 AND 5),
    video_quality_rating    INTEGER CHECK (video_quality_rating BETWEEN 1 AND 5),
    doctor_behaviour_rating INTEGER CHECK (doctor_behaviour_rating BETWEEN 1 AND 5),
    review_text             TEXT,
    feedback_tags           TEXT    NOT NULL DEFAULT '[]',
    would_recommend         INTEGER CHECK (would_recommend IN (0, 1)),
    doctor_response         TEXT,
    doctor_responded_at     TEXT,
    is_public               INTEGER NOT NULL DEFAULT 1 CHECK (is_public IN (0, 1)),
    is_verified             INTEGER NOT NULL DEFAULT 1 CHECK (is_verified IN (0, 1)),
    created_at              TEXT    NOT NULL,
    updated_at              TEXT    NOT NULL,
    CONSTRAINT one_feedback UNIQUE (session_id)
) STRICT;

CREATE INDEX idx_feedback_doctor ON consultation_feedback (clinic, doctor_id, created_at, id);
CREATE INDEX idx_feedback_rating ON consultation_feedback (clinic, overall_rating);
