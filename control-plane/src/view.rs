//! What the API and the channels show of a consultation.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::consultation::{Consultation, Person};
use crate::store::MessageRow;

/// A time as RFC 3339 in UTC with milliseconds.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A consultation; the older contracts call it a session.
#[derive(Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its id.
    pub session_id: Uuid,
    /// The appointment it belongs to.
    pub appointment_id: Option<String>,
    /// `SCHEDULED`, `WAITING`, `IN_PROGRESS`, `PAUSED`, `COMPLETED`, `CANCELLED`, `NO_SHOW`,
    /// `FAILED`.
    pub status: String,
    /// `VIDEO`, `AUDIO`, `CHAT`.
    pub consultation_mode: String,
    /// Planned begin.
    pub scheduled_start_time: String,
    /// Planned length.
    pub scheduled_duration_minutes: i64,
    /// The room that carries it.
    pub room_name: String,
    /// The clinician.
    pub doctor: NamedView,
    /// The person cared for.
    pub patient: NamedView,
    /// Everyone who has come.
    pub participants: Vec<PersonView>,
    /// The waiting room, first come first.
    pub waiting: Vec<WaitingView>,
    /// When it was made.
    pub created_at: String,
    /// When somebody was first let in.
    pub actual_start_time: Option<String>,
    /// When it was over.
    pub actual_end_time: Option<String>,
    /// From begin to end, in seconds.
    pub total_duration_seconds: Option<i64>,
    /// Why it ended.
    pub end_reason: Option<String>,
    /// How many persons may be in the room at once.
    pub max_participants: i64,
}

/// An id with the name to show.
#[derive(Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct NamedView {
    /// The id.
    pub id: String,
    /// The name.
    pub name: String,
}

/// A person who has come.
#[derive(Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersonView {
    /// Its id.
    pub user_id: String,
    /// Display name.
    pub name: String,
    /// `patient`, `doctor`, `guest`.
    pub role: &'static str,
    /// `waiting`, `admitted`, `connected`, `reconnecting`, `left`.
    pub status: &'static str,
}

/// A person in the waiting room.
#[derive(Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingView {
    /// Its id.
    pub user_id: String,
    /// Display name.
    pub name: String,
    /// Since when.
    pub since: String,
    /// Place in the queue, from 1.
    pub position: usize,
}

/// A chat message.
#[derive(Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageView {
    /// Its id.
    pub message_id: Uuid,
    /// The consultation.
    pub session_id: Uuid,
    /// Who wrote it.
    pub sender_id: String,
    /// Its name then.
    pub sender_name: String,
    /// `patient`, `doctor`, `guest`.
    pub sender_type: String,
    /// The text.
    pub content: String,
    /// `text`.
    pub message_type: String,
    /// When it was stored.
    pub timestamp: String,
    /// The sender's own id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// Who looks at a consultation: a waiting person sees less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Viewer<'a> {
    /// The doctor, a service, an administrator, a person who was let in.
    Everything,
    /// A person who was not let in: it sees itself and the doctor.
    Outside(&'a str),
}

impl Viewer<'_> {
    /// May this viewer see this person?
    pub(crate) fn sees(self, consultation: &Consultation, person: &Person) -> bool {
        match self {
            Self::Everything => true,
            Self::Outside(me) => person.user_id == me || person.user_id == consultation.doctor_id,
        }
    }
}

/// Everyone that the viewer may see.
pub(crate) fn people(consultation: &Consultation, viewer: Viewer<'_>) -> Vec<PersonView> {
    let seen = consultation.people.iter().filter(|person| viewer.sees(consultation, person));
    seen.map(|person| PersonView {
        user_id: person.user_id.clone(),
        name: person.name.reveal().clone(),
        role: person.role.as_str(),
        status: person.presence.as_str(),
    })
    .collect()
}

/// The consultation as the viewer may see it.
pub(crate) fn session(consultation: &Consultation, viewer: Viewer<'_>) -> SessionView {
    let queue = consultation.waiting();
    let waiting = queue.into_iter().zip(1..).filter(|(p, _)| viewer.sees(consultation, p));
    SessionView {
        session_id: consultation.id,
        appointment_id: consultation.appointment_id.clone(),
        status: consultation.status.as_str().to_owned(),
        consultation_mode: consultation.mode.as_str().to_owned(),
        scheduled_start_time: time(consultation.scheduled_start),
        scheduled_duration_minutes: consultation.scheduled_minutes,
        room_name: consultation.room_name.clone(),
        doctor: NamedView {
            id: consultation.doctor_id.clone(),
            name: consultation.doctor_name.reveal().clone(),
        },
        patient: NamedView {
            id: consultation.patient_id.clone(),
            name: consultation.patient_name.reveal().clone(),
        },
        participants: people(consultation, viewer),
        waiting: waiting
            .map(|(person, position)| WaitingView {
                user_id: person.user_id.clone(),
                name: person.name.reveal().clone(),
                since: person.waiting_since.map(time).unwrap_or_default(),
                position,
            })
            .collect(),
        created_at: time(consultation.created_at),
        actual_start_time: consultation.actual_start.map(time),
        actual_end_time: consultation.actual_end.map(time),
        total_duration_seconds: consultation.duration_seconds,
        end_reason: consultation.end_reason.clone(),
        max_participants: consultation.max_participants,
    }
}

/// A stored message as everyone sees it.
pub(crate) fn message(row: MessageRow) -> MessageView {
    MessageView {
        message_id: row.id,
        session_id: row.session_id,
        sender_id: row.sender_id,
        sender_name: row.sender_name,
        sender_type: row.sender_type,
        content: row.content,
        message_type: row.message_type,
        timestamp: time(row.created_at),
        client_id: row.client_id,
    }
}
