//! Consultations: create, load, list, save.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::outbox::{Along, store_along};
use super::{Connected, Db, execute, fetch, unknown_word};
use crate::Private;
use crate::billing::BillingConfig;
use crate::consultation::{Consultation, Happening, Mode, PersonRole, Quality, Status, Transition};

macro_rules! columns {
    () => {
        "SELECT id, clinic, appointment_id, patient_id, patient_name, doctor_id, doctor_name, \
         consultation_mode, scheduled_start_time, scheduled_duration_minutes, room_name, status, \
         max_participants, patient_joined_at, doctor_joined_at, actual_start_time, started_by, \
         both_connected_at, paused_at, paused_seconds, actual_end_time, total_duration_seconds, \
         end_reason, ended_by, ended_by_role, reopened_at, quiet_since, due_at, revision, \
         created_at, room_sid FROM consultation_sessions "
    };
}

/// The condition of a page, shared by the sessions and the people in them.
macro_rules! page {
    () => {
        "WHERE clinic = $1 AND ($2 IS NULL OR doctor_id = $2) \
         AND ($3 IS NULL OR patient_id = $3) AND ($4 IS NULL OR status = $4) \
         AND ($5 IS NULL OR id = $5) \
         AND ($6 IS NULL OR scheduled_start_time < $6 \
              OR (scheduled_start_time = $6 AND id < $7)) \
         ORDER BY scheduled_start_time DESC, id DESC LIMIT $8"
    };
}
pub(super) use {columns, page};

#[derive(sqlx::FromRow)]
pub(super) struct SessionRow {
    id: Uuid,
    clinic: String,
    appointment_id: Option<String>,
    patient_id: String,
    patient_name: String,
    doctor_id: String,
    doctor_name: String,
    consultation_mode: String,
    scheduled_start_time: DateTime<Utc>,
    scheduled_duration_minutes: i64,
    room_name: String,
    room_sid: Option<String>,
    status: String,
    max_participants: i64,
    patient_joined_at: Option<DateTime<Utc>>,
    doctor_joined_at: Option<DateTime<Utc>>,
    actual_start_time: Option<DateTime<Utc>>,
    started_by: Option<String>,
    both_connected_at: Option<DateTime<Utc>>,
    paused_at: Option<DateTime<Utc>>,
    paused_seconds: i64,
    actual_end_time: Option<DateTime<Utc>>,
    total_duration_seconds: Option<i64>,
    end_reason: Option<String>,
    ended_by: Option<String>,
    ended_by_role: Option<String>,
    reopened_at: Option<DateTime<Utc>>,
    quiet_since: Option<DateTime<Utc>>,
    due_at: Option<DateTime<Utc>>,
    revision: i64,
    created_at: DateTime<Utc>,
}

impl SessionRow {
    pub(super) fn into_consultation(self) -> Result<Consultation, sqlx::Error> {
        let mode = Mode::parse(&self.consultation_mode)
            .ok_or_else(|| unknown_word("consultation_mode", &self.consultation_mode))?;
        let status =
            Status::parse(&self.status).ok_or_else(|| unknown_word("status", &self.status))?;
        let ended_by_role = match self.ended_by_role.as_deref() {
            Some(word) => {
                Some(PersonRole::parse(word).ok_or_else(|| unknown_word("ended_by_role", word))?)
            }
            None => None,
        };
        Ok(Consultation {
            id: self.id,
            clinic: self.clinic,
            appointment_id: self.appointment_id,
            mode,
            scheduled_start: self.scheduled_start_time,
            scheduled_minutes: self.scheduled_duration_minutes,
            room_name: self.room_name,
            room_sid: self.room_sid,
            status,
            doctor_id: self.doctor_id,
            doctor_name: Private::new(self.doctor_name),
            patient_id: self.patient_id,
            patient_name: Private::new(self.patient_name),
            max_participants: self.max_participants,
            people: Vec::new(),
            patient_joined_at: self.patient_joined_at,
            doctor_joined_at: self.doctor_joined_at,
            actual_start: self.actual_start_time,
            started_by: self.started_by,
            both_connected_at: self.both_connected_at,
            paused_at: self.paused_at,
            paused_seconds: self.paused_seconds,
            actual_end: self.actual_end_time,
            duration_seconds: self.total_duration_seconds,
            end_reason: self.end_reason,
            ended_by: self.ended_by,
            ended_by_role,
            reopened_at: self.reopened_at,
            quiet_since: self.quiet_since,
            due_at: self.due_at,
            created_at: self.created_at,
            revision: self.revision,
        })
    }
}

#[derive(sqlx::FromRow)]
struct DueRow {
    clinic: String,
    id: Uuid,
}

#[derive(sqlx::FromRow)]
struct OwnerRow {
    id: Uuid,
    clinic: String,
}

#[derive(sqlx::FromRow)]
struct CountRow {
    status: String,
    sessions: i64,
}

/// Which consultations to list; the newest planned begin comes first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) doctor_id: Option<String>,
    pub(crate) patient_id: Option<String>,
    pub(crate) status: Option<Status>,
    /// Only this one.
    pub(crate) only: Option<Uuid>,
    /// Start behind this one.
    pub(crate) after: Option<(DateTime<Utc>, Uuid)>,
    pub(crate) limit: i64,
}

/// What became of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// It is stored.
    Yes,
    /// Somebody else stored a newer revision first: load again.
    Stale,
    /// The message that asks for it has taken effect before.
    Repeated,
}

impl Db {
    /// Stores a new consultation. `false`: its appointment already has one, or the message that
    /// asks for it has taken effect before.
    pub(crate) async fn insert_session(
        &self,
        consultation: &Consultation,
        created: &Transition,
        along: &Along<'_>,
    ) -> Result<bool, sqlx::Error> {
        const SQL: &str = "INSERT INTO consultation_sessions \
            (id, clinic, appointment_id, patient_id, patient_name, doctor_id, doctor_name, \
             consultation_mode, scheduled_start_time, scheduled_duration_minutes, room_name, \
             status, max_participants, due_at, revision, created_at, updated_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $16) \
            ON CONFLICT (clinic, appointment_id) DO NOTHING";
        let mut tx = self.begin().await?;
        let inserted = execute!(
            &mut tx,
            SQL,
            consultation.id,
            &consultation.clinic,
            &consultation.appointment_id,
            &consultation.patient_id,
            consultation.patient_name.reveal(),
            &consultation.doctor_id,
            consultation.doctor_name.reveal(),
            consultation.mode.as_str(),
            consultation.scheduled_start,
            consultation.scheduled_minutes,
            &consultation.room_name,
            consultation.status.as_str(),
            consultation.max_participants,
            consultation.due_at,
            consultation.revision,
            consultation.created_at,
        )?;
        if inserted == 0 {
            return Ok(false);
        }
        super::happenings::append(&mut tx, consultation.id, created).await?;
        if !store_along(&mut tx, along, consultation.created_at).await? {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// One consultation of a clinic.
    pub(crate) async fn session(
        &self,
        clinic: &str,
        id: Uuid,
    ) -> Result<Option<Consultation>, sqlx::Error> {
        const SQL: &str = concat!(columns!(), "WHERE clinic = $1 AND id = $2");
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, SessionRow, SQL, clinic, id)?;
        with_people(&mut reader, row).await
    }

    /// The consultation of an appointment.
    pub(crate) async fn session_of_appointment(
        &self,
        clinic: &str,
        appointment_id: &str,
    ) -> Result<Option<Consultation>, sqlx::Error> {
        const SQL: &str = concat!(columns!(), "WHERE clinic = $1 AND appointment_id = $2");
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, SessionRow, SQL, clinic, appointment_id)?;
        with_people(&mut reader, row).await
    }

    /// The consultation that a room carries.
    pub(crate) async fn session_of_room(
        &self,
        room_name: &str,
    ) -> Result<Option<Consultation>, sqlx::Error> {
        const SQL: &str = concat!(columns!(), "WHERE room_name = $1");
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, SessionRow, SQL, room_name)?;
        with_people(&mut reader, row).await
    }

    /// Every consultation that has begun and is not over; read once at the start.
    pub(crate) async fn running_sessions(&self) -> Result<Vec<Consultation>, sqlx::Error> {
        const SQL: &str =
            concat!(columns!(), "WHERE status IN ('WAITING', 'IN_PROGRESS', 'PAUSED')");
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, SessionRow, SQL)?;
        let mut sessions = Vec::with_capacity(rows.len());
        for row in rows {
            sessions.extend(with_people(&mut reader, Some(row)).await?);
        }
        Ok(sessions)
    }

    /// Whose consultation this is; for messages, which name no clinic.
    pub(crate) async fn owner_of_session(
        &self,
        id: Uuid,
    ) -> Result<Option<(Uuid, String)>, sqlx::Error> {
        const SQL: &str = "SELECT id, clinic FROM consultation_sessions WHERE id = $1";
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, OwnerRow, SQL, id)?;
        Ok(row.map(|row| (row.id, row.clinic)))
    }

    /// Whose room this is, and for which consultation.
    pub(crate) async fn owner_of_room(
        &self,
        room_name: &str,
    ) -> Result<Option<(Uuid, String)>, sqlx::Error> {
        const SQL: &str = "SELECT id, clinic FROM consultation_sessions WHERE room_name = $1";
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, OwnerRow, SQL, room_name)?;
        Ok(row.map(|row| (row.id, row.clinic)))
    }

    /// One page of a clinic's consultations.
    pub(crate) async fn sessions(
        &self,
        clinic: &str,
        page: &Page,
    ) -> Result<Vec<Consultation>, sqlx::Error> {
        const SQL: &str = concat!(columns!(), page!());
        let mut reader = self.read().await?;
        let rows = fetch!(
            &mut reader,
            fetch_all,
            SessionRow,
            SQL,
            clinic,
            &page.doctor_id,
            &page.patient_id,
            page.status.map(Status::as_str),
            page.only,
            page.after.map(|(start, _)| start),
            page.after.map(|(_, id)| id),
            page.limit,
        )?;
        let mut people = super::people::of_page(&mut reader, clinic, page).await?;
        let mut sessions = Vec::with_capacity(rows.len());
        for row in rows {
            let mut consultation = row.into_consultation()?;
            consultation.people = people.remove(&consultation.id).unwrap_or_default();
            sessions.push(consultation);
        }
        Ok(sessions)
    }

    /// Stores a changed consultation, if nobody changed it since the revision it started from.
    /// The stored revision is the one in `consultation`.
    pub(crate) async fn save_session(
        &self,
        consultation: &Consultation,
        expected_revision: i64,
        made: &[Transition],
        along: &Along<'_>,
        billing: BillingConfig,
        now: DateTime<Utc>,
    ) -> Result<Saved, sqlx::Error> {
        const SQL: &str = "UPDATE consultation_sessions SET status = $3, patient_joined_at = $4, \
            doctor_joined_at = $5, actual_start_time = $6, actual_end_time = $7, \
            total_duration_seconds = $8, end_reason = $9, revision = $10, updated_at = $11, \
            started_by = $12, both_connected_at = $13, paused_at = $14, paused_seconds = $15, \
            ended_by = $16, ended_by_role = $17, reopened_at = $18, quiet_since = $19, \
            due_at = $20, patient_connection_quality = $21, doctor_connection_quality = $22, \
            scheduled_start_time = $23, scheduled_duration_minutes = $24, room_sid = $25 \
            WHERE id = $1 AND revision = $2";
        let quality = |user_id: &str| {
            let person = consultation.person(user_id);
            person.and_then(|person| person.figures.quality()).map(Quality::as_str)
        };
        let mut tx = self.begin().await?;
        if made.iter().any(|transition| transition.happening == Happening::Reopened) {
            super::links::live_on(&mut tx, consultation.id, now).await?;
        }
        let touched = execute!(
            &mut tx,
            SQL,
            consultation.id,
            expected_revision,
            consultation.status.as_str(),
            consultation.patient_joined_at,
            consultation.doctor_joined_at,
            consultation.actual_start,
            consultation.actual_end,
            consultation.duration_seconds,
            &consultation.end_reason,
            consultation.revision,
            now,
            &consultation.started_by,
            consultation.both_connected_at,
            consultation.paused_at,
            consultation.paused_seconds,
            &consultation.ended_by,
            consultation.ended_by_role.map(PersonRole::as_str),
            consultation.reopened_at,
            consultation.quiet_since,
            consultation.due_at,
            quality(&consultation.patient_id),
            quality(&consultation.doctor_id),
            consultation.scheduled_start,
            consultation.scheduled_minutes,
            &consultation.room_sid,
        )?;
        if touched == 0 {
            return Ok(Saved::Stale);
        }
        if made.iter().any(|transition| transition.happening == Happening::Rescheduled) {
            super::links::live_until(&mut tx, consultation.id, consultation.planned_end()).await?;
        }
        super::people::save(&mut tx, consultation, now).await?;
        for transition in made {
            super::happenings::append(&mut tx, consultation.id, transition).await?;
        }
        let ended = |made: &Transition| made.to.is_over() && !made.from.is_over();
        if made.iter().any(ended) && consultation.status.is_over() {
            super::billing::fix_amount(&mut tx, consultation, billing, now).await?;
        }
        if let Some(end) = consultation.actual_end {
            super::links::end_with_session(&mut tx, consultation.id, end).await?;
        }
        if !store_along(&mut tx, along, now).await? {
            return Ok(Saved::Repeated);
        }
        tx.commit().await?;
        Ok(Saved::Yes)
    }

    /// Consultations with a timer due at a time, the most overdue first: clinic and id.
    pub(crate) async fn due_sessions(
        &self,
        at: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<(String, Uuid)>, sqlx::Error> {
        const SQL: &str = "SELECT clinic, id FROM consultation_sessions \
            WHERE due_at IS NOT NULL AND due_at <= $1 ORDER BY due_at LIMIT $2";
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, DueRow, SQL, at, limit)?;
        Ok(rows.into_iter().map(|row| (row.clinic, row.id)).collect())
    }

    /// Corrects when a consultation is due, unless it has changed.
    pub(crate) async fn set_due(
        &self,
        id: Uuid,
        revision: i64,
        at: Option<DateTime<Utc>>,
    ) -> Result<(), sqlx::Error> {
        const SQL: &str =
            "UPDATE consultation_sessions SET due_at = $3 WHERE id = $1 AND revision = $2";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, id, revision, at)?;
        tx.commit().await
    }

    /// How many consultations there are of each status, in the order of [`Status::ALL`].
    pub(crate) async fn count_sessions(&self) -> Result<[u64; 8], sqlx::Error> {
        const SQL: &str = "SELECT status, CAST(COUNT(*) AS BIGINT) AS sessions \
            FROM consultation_sessions GROUP BY status";
        let mut reader = self.read().await?;
        let mut counts = [0; 8];
        for row in fetch!(&mut reader, fetch_all, CountRow, SQL)? {
            let status =
                Status::parse(&row.status).ok_or_else(|| unknown_word("status", &row.status))?;
            if let Some(count) = counts.get_mut(status.index()) {
                *count = u64::try_from(row.sessions).unwrap_or(0);
            }
        }
        Ok(counts)
    }
}

async fn with_people(
    reader: &mut impl Connected,
    row: Option<SessionRow>,
) -> Result<Option<Consultation>, sqlx::Error> {
    let Some(row) = row else { return Ok(None) };
    let mut consultation = row.into_consultation()?;
    consultation.people = super::people::of_session(reader, consultation.id).await?;
    Ok(Some(consultation))
}
