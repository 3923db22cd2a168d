//! The people of consultations.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::sessions::page;
use super::{Connected, Page, Tx, execute, fetch, unknown_word};
use crate::Private;
use crate::consultation::{
    Consultation, Device, DeviceKind, Figures, Person, PersonRole, Presence, Status,
};

macro_rules! columns {
    () => {
        "SELECT session_id, user_id, user_name, participant_type, presence, admitted, \
         waiting_since, joined_at, left_at, rejoin_count, device_type, browser, os, lost_since, \
         reconnect_attempts, connection_lost, measured_seconds, connection_score, \
         packet_loss_percent, avg_video_bitrate, avg_audio_level FROM session_participants "
    };
}

#[derive(sqlx::FromRow)]
struct PersonRow {
    session_id: Uuid,
    user_id: String,
    user_name: String,
    participant_type: String,
    presence: String,
    admitted: bool,
    waiting_since: Option<DateTime<Utc>>,
    joined_at: Option<DateTime<Utc>>,
    left_at: Option<DateTime<Utc>>,
    rejoin_count: i64,
    device_type: Option<String>,
    browser: Option<String>,
    os: Option<String>,
    lost_since: Option<DateTime<Utc>>,
    reconnect_attempts: i64,
    connection_lost: bool,
    measured_seconds: i64,
    connection_score: Option<f64>,
    packet_loss_percent: Option<f64>,
    avg_video_bitrate: Option<i64>,
    avg_audio_level: Option<f64>,
}

impl PersonRow {
    fn into_person(self) -> Result<Person, sqlx::Error> {
        let role = PersonRole::parse(&self.participant_type)
            .ok_or_else(|| unknown_word("participant_type", &self.participant_type))?;
        let presence = Presence::parse(&self.presence)
            .ok_or_else(|| unknown_word("presence", &self.presence))?;
        Ok(Person {
            user_id: self.user_id,
            name: Private::new(self.user_name),
            role,
            presence,
            admitted: self.admitted,
            waiting_since: self.waiting_since,
            joined_at: self.joined_at,
            left_at: self.left_at,
            rejoin_count: self.rejoin_count,
            device: Device {
                // The column is older than its words: what is none of them is not known.
                kind: self.device_type.as_deref().and_then(DeviceKind::parse),
                browser: self.browser,
                os: self.os,
            },
            lost_since: self.lost_since,
            reconnect_attempts: self.reconnect_attempts,
            connection_lost: self.connection_lost,
            figures: Figures {
                seconds: self.measured_seconds,
                score: self.connection_score,
                packet_loss_percent: self.packet_loss_percent,
                video_bitrate_bps: self.avg_video_bitrate,
                audio_level: self.avg_audio_level,
            },
        })
    }
}

/// Everyone of one consultation, in the order of coming.
pub(super) async fn of_session(
    reader: &mut impl Connected,
    session_id: Uuid,
) -> Result<Vec<Person>, sqlx::Error> {
    const SQL: &str = concat!(columns!(), "WHERE session_id = $1 ORDER BY arrival");
    let rows = fetch!(reader, fetch_all, PersonRow, SQL, session_id)?;
    rows.into_iter().map(PersonRow::into_person).collect()
}

/// Everyone of one page of consultations.
pub(super) async fn of_page(
    reader: &mut impl Connected,
    clinic: &str,
    page: &Page,
) -> Result<HashMap<Uuid, Vec<Person>>, sqlx::Error> {
    const SQL: &str = concat!(
        columns!(),
        "WHERE session_id IN (SELECT id FROM consultation_sessions ",
        page!(),
        ") ORDER BY session_id, arrival"
    );
    let rows = fetch!(
        reader,
        fetch_all,
        PersonRow,
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
    let mut people: HashMap<Uuid, Vec<Person>> = HashMap::new();
    for row in rows {
        let session_id = row.session_id;
        people.entry(session_id).or_default().push(row.into_person()?);
    }
    Ok(people)
}

/// Writes everyone of a consultation; there are few.
pub(super) async fn save(
    tx: &mut Tx,
    consultation: &Consultation,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO session_participants \
        (id, session_id, user_id, user_name, participant_type, presence, admitted, arrival, \
         waiting_since, joined_at, left_at, rejoin_count, created_at, device_type, browser, os, \
         lost_since, reconnect_attempts, connection_lost, measured_seconds, connection_score, \
         packet_loss_percent, avg_video_bitrate, avg_audio_level) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
         $18, $19, $20, $21, $22, $23, $24) \
        ON CONFLICT (session_id, user_id) DO UPDATE SET user_name = excluded.user_name, \
         presence = excluded.presence, admitted = excluded.admitted, \
         waiting_since = excluded.waiting_since, joined_at = excluded.joined_at, \
         left_at = excluded.left_at, rejoin_count = excluded.rejoin_count, \
         device_type = excluded.device_type, browser = excluded.browser, os = excluded.os, \
         lost_since = excluded.lost_since, reconnect_attempts = excluded.reconnect_attempts, \
         connection_lost = excluded.connection_lost, \
         measured_seconds = excluded.measured_seconds, \
         connection_score = excluded.connection_score, \
         packet_loss_percent = excluded.packet_loss_percent, \
         avg_video_bitrate = excluded.avg_video_bitrate, \
         avg_audio_level = excluded.avg_audio_level";
    for (arrival, person) in (0i64..).zip(&consultation.people) {
        execute!(
            &mut *tx,
            SQL,
            Uuid::now_v7(),
            consultation.id,
            &person.user_id,
            person.name.reveal(),
            person.role.as_str(),
            person.presence.as_str(),
            person.admitted,
            arrival,
            person.waiting_since,
            person.joined_at,
            person.left_at,
            person.rejoin_count,
            now,
            person.device.kind.map(DeviceKind::as_str),
            &person.device.browser,
            &person.device.os,
            person.lost_since,
            person.reconnect_attempts,
            person.connection_lost,
            person.figures.seconds,
            person.figures.score,
            person.figures.packet_loss_percent,
            person.figures.video_bitrate_bps,
            person.figures.audio_level,
        )?;
    }
    Ok(())
}
