//! Consultations of the past, and what a summary of one adds up.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::sessions::{SessionRow, columns};
use super::{Db, fetch};
use crate::consultation::{Consultation, Mode, Status};

/// The condition of a page of the past and of counting it.
macro_rules! past {
    () => {
        "WHERE clinic = $1 AND ($2 IS NULL OR doctor_id = $2) \
         AND ($3 IS NULL OR patient_id = $3) \
         AND ($4 IS NULL OR doctor_id = $4 OR patient_id = $4) AND ($5 IS NULL OR id = $5) \
         AND (status = $6 OR ($6 IS NULL \
              AND status IN ('COMPLETED', 'CANCELLED', 'NO_SHOW', 'FAILED'))) \
         AND ($7 IS NULL OR consultation_mode = $7) \
         AND ($8 IS NULL OR scheduled_start_time >= $8) \
         AND ($9 IS NULL OR scheduled_start_time < $9) "
    };
}

/// Which consultations of the past; the newest planned begin comes first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    pub(crate) doctor_id: Option<String>,
    pub(crate) patient_id: Option<String>,
    /// In either part.
    pub(crate) user_id: Option<String>,
    /// Only this one.
    pub(crate) only: Option<Uuid>,
    /// Everything that is over, if absent.
    pub(crate) status: Option<Status>,
    pub(crate) mode: Option<Mode>,
    /// Planned to begin then or later.
    pub(crate) from: Option<DateTime<Utc>>,
    /// Planned to begin earlier than that.
    pub(crate) to: Option<DateTime<Utc>>,
    /// Start behind this one.
    pub(crate) after: Option<(DateTime<Utc>, Uuid)>,
    /// Leave out so many; for the contract that counts pages.
    pub(crate) skip: i64,
    pub(crate) limit: i64,
}

#[derive(sqlx::FromRow)]
struct NumberRow {
    number: i64,
}

impl Db {
    /// One page of a clinic's past, without the people of each consultation.
    pub(crate) async fn past(
        &self,
        clinic: &str,
        past: &Past,
    ) -> Result<Vec<Consultation>, sqlx::Error> {
        const SQL: &str = concat!(
            columns!(),
            past!(),
            "AND ($10 IS NULL OR scheduled_start_time < $10 \
                  OR (scheduled_start_time = $10 AND id < $11)) \
             ORDER BY scheduled_start_time DESC, id DESC LIMIT $12 OFFSET $13"
        );
        let mut reader = self.read().await?;
        let rows = fetch!(
            &mut reader,
            fetch_all,
            SessionRow,
            SQL,
            clinic,
            &past.doctor_id,
            &past.patient_id,
            &past.user_id,
            past.only,
            past.status.map(Status::as_str),
            past.mode.map(Mode::as_str),
            past.from,
            past.to,
            past.after.map(|(start, _)| start),
            past.after.map(|(_, id)| id),
            past.limit,
            past.skip,
        )?;
        rows.into_iter().map(SessionRow::into_consultation).collect()
    }

    /// How many there are of them, whatever the page.
    pub(crate) async fn count_past(&self, clinic: &str, past: &Past) -> Result<i64, sqlx::Error> {
        const SQL: &str = concat!(
            "SELECT CAST(COUNT(*) AS BIGINT) AS number FROM consultation_sessions ",
            past!()
        );
        let mut reader = self.read().await?;
        let row = fetch!(
            &mut reader,
            fetch_one,
            NumberRow,
            SQL,
            clinic,
            &past.doctor_id,
            &past.patient_id,
            &past.user_id,
            past.only,
            past.status.map(Status::as_str),
            past.mode.map(Mode::as_str),
            past.from,
            past.to,
        )?;
        Ok(row.number)
    }

    /// How many messages were written in a consultation.
    pub(crate) async fn count_messages(&self, session: Uuid) -> Result<i64, sqlx::Error> {
        const SQL: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS number FROM chat_messages \
            WHERE session_id = $1 AND is_deleted = $2 AND message_type <> 'system'";
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_one, NumberRow, SQL, session, false)?;
        Ok(row.number)
    }
}
