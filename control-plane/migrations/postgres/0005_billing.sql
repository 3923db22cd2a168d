-- Prices, what consultations cost, payments and feedback.
-- Amounts are in the minor unit of their currency; `minor_digits` says how many digits that has.
-- A rate per minute may be finer: it is in ten-thousandths of the minor unit.

CREATE TABLE consultation_pricing (
    id                  UUID        NOT NULL PRIMARY KEY,
    clinic              TEXT        NOT NULL,
    doctor_id           TEXT        NOT NULL,
    consultation_mode   TEXT        NOT NULL
        CHECK (consultation_mode IN ('VIDEO', 'AUDIO', 'CHAT')),
    pricing_type        TEXT        NOT NULL DEFAULT 'FLAT'
        CHECK (pricing_type IN ('FLAT', 'PER_MINUTE', 'TIERED')),
    flat_fee_minor      BIGINT      CHECK (flat_fee_minor >= 0),
    per_minute_rate_e4  BIGINT      CHECK (per_minute_rate_e4 >= 0),
    minimum_minutes     BIGINT      NOT NULL DEFAULT 5 CHECK (minimum_minutes >= 0),
    tier_config         JSONB,
    currency            TEXT        NOT NULL DEFAULT 'INR' CHECK (length(currency) = 3),
    minor_digits        BIGINT      NOT NULL DEFAULT 2 CHECK (minor_digits BETWEEN 0 AND 4),
    is_active           BOOLEAN     NOT NULL DEFAULT TRUE,
    updated_by          TEXT        NOT NULL,
    created_at          TIMESTAMPTZ NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL,
    CONSTRAINT unique_doctor_mode UNIQUE (clinic, doctor_id, consultation_mode)
);

CREATE TABLE session_billing (
    session_id     UUID        NOT NULL PRIMARY KEY REFERENCES consultation_sessions (id),
    clinic         TEXT        NOT NULL,
    billed_seconds BIGINT,
    pricing_type   TEXT,
    amount_minor   BIGINT,
    currency       TEXT,
    minor_digits   BIGINT,
    fixed_at       TIMESTAMPTZ NOT NULL,
    CONSTRAINT whole_amount CHECK ((amount_minor IS NULL) = (currency IS NULL)
                                   AND (amount_minor IS NULL) = (minor_digits IS NULL))
);

CREATE TABLE appointment_payments (
    clinic         TEXT        NOT NULL,
    appointment_id TEXT        NOT NULL,
    status         TEXT        NOT NULL CHECK (status IN ('PENDING', 'COMPLETED')),
    payment_id     TEXT,
    verified_by    TEXT,
    verified_at    TIMESTAMPTZ,
    appointment    JSONB,
    created_at     TIMESTAMPTZ NOT NULL,
    updated_at     TIMESTAMPTZ NOT NULL,
    CONSTRAINT one_payment PRIMARY KEY (clinic, appointment_id),
    CONSTRAINT completed_by_somebody
        CHECK (status = 'PENDING' OR (payment_id IS NOT NULL AND verified_at IS NOT NULL))
);

CREATE TABLE consultation_feedback (
    id                      UUID        NOT NULL PRIMARY KEY,
    session_id              UUID        NOT NULL REFERENCES consultation_sessions (id),
    clinic                  TEXT        NOT NULL,
    patient_id              TEXT        NOT NULL,
    doctor_id               TEXT        NOT NULL,
    overall_rating          BIGINT      NOT NULL CHECK (overall_rating BETWEEN 1 AND 5),
    audio_quality_rating    BIGINT      CHECK (audio_quality_rating BETWEEN 1 AND 5),
    video_quality_rating    BIGINT      CHECK (video_quality_rating BETWEEN 1 AND 5),
    doctor_behaviour_rating BIGINT      CHECK (doctor_behaviour_rating BETWEEN 1 AND 5),
    review_text             TEXT,
    feedback_tags           JSONB       NOT NULL DEFAULT '[]',
    would_recommend         BOOLEAN,
    doctor_response         TEXT,
    doctor_responded_at     TIMESTAMPTZ,
    is_public               BOOLEAN     NOT NULL DEFAULT TRUE,
    is_verified             BOOLEAN     NOT NULL DEFAULT TRUE,
    created_at              TIMESTAMPTZ NOT NULL,
    updated_at              TIMESTAMPTZ NOT NULL,
    CONSTRAINT one_feedback UNIQUE (session_id)
);

CREATE INDEX idx_feedback_doctor ON consultation_feedback (clinic, doctor_id, created_at, id);
CREATE INDEX idx_feedback_rating ON consultation_feedback (clinic, overall_rating);

-- Prices in decimals, for reports: two digits, so finer rates and currencies with three digits
-- are rounded here and exact above. PostgreSQL only; SQLite has no decimal type.
CREATE VIEW consultation_pricing_decimal AS
SELECT id, clinic, doctor_id, consultation_mode, pricing_type,
       CAST(flat_fee_minor / power(10::NUMERIC, minor_digits) AS DECIMAL(10, 2)) AS flat_fee,
       CAST(per_minute_rate_e4 / power(10::NUMERIC, minor_digits + 4) AS DECIMAL(10, 2))
           AS per_minute_rate,
       minimum_minutes,
       (SELECT jsonb_agg(jsonb_build_object(
                   'upToMinutes', tier -> 'upToMinutes',
                   'price', round((tier ->> 'priceMinor')::NUMERIC
                                  / power(10::NUMERIC, minor_digits), minor_digits::INTEGER))
                   ORDER BY place)
          FROM jsonb_array_elements(tier_config) WITH ORDINALITY AS tiers (tier, place))
           AS tier_config,
       currency, is_active, created_at, updated_at
  FROM consultation_pricing;
