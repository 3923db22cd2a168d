//! The people of consultations.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::sessions::page;
use super::{Connected, Page, Tx, execute, fetch, unknown_word};
use crate::Private;
use crate::consultation::{Consultation, Person, PersonRole, Presence, Status};

macro_rules! columns {
    () => {
        "SELECT session_id, user_id, user_name, participant_type, presence, admitted, \
         waiting_since, joined_at, left_at, rejoin_count FROM session_participants "
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
         waiting_since, joined_at, left_at, rejoin_count, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
        ON CONFLICT (session_id, user_id) DO UPDATE SET user_name = excluded.user_name, \
         presence = excluded.presence, admitted = excluded.admitted, \
         waiting_since = excluded.waiting_since, joined_at = excluded.joined_at, \
         left_at = excluded.left_at, rejoin_count = excluded.rejoin_count";
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
        )?;
    }
    Ok(())
}
