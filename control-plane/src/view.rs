//! What the API and the channels show of a consultation.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::consultation::{Consultation, DeviceKind, Person, PersonRole, Quality};
use crate::store::{EventRow, MessageRow};

/// A time as RFC 3339 in UTC with milliseconds.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A consultation; the older contracts call it a session.
#[derive(Clone, PartialEq, Serialize, utoipa::ToSchema)]
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
    /// When it began: it was started, somebody was let in, or both were connected.
    pub actual_start_time: Option<String>,
    /// Who began it.
    pub started_by: Option<String>,
    /// When doctor and patient first had media at the same time.
    pub both_connected_at: Option<String>,
    /// How long it was interrupted, in seconds, without the interruption that lasts.
    pub paused_seconds: i64,
    /// Since when it is interrupted.
    pub paused_since: Option<String>,
    /// When it was over.
    pub actual_end_time: Option<String>,
    /// From begin to end, in seconds.
    pub total_duration_seconds: Option<i64>,
    /// The same by its other name.
    pub duration_seconds: Option<i64>,
    /// Why it ended: `completed`, `patient_left`, `doctor_left`, `timeout`, or in other words.
    pub end_reason: Option<String>,
    /// Who ended it; none = the server.
    pub ended_by: Option<String>,
    /// What that person is here: `patient`, `doctor`, `guest`.
    pub ended_by_role: Option<&'static str>,
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
#[derive(Clone, PartialEq, Serialize, utoipa::ToSchema)]
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
    /// It left because its connection did not come back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub connection_lost: bool,
    /// What only doctors and the clinic see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<PersonDetails>,
}

/// How a person took part.
#[derive(Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersonDetails {
    /// First time in the room.
    pub joined_at: Option<String>,
    /// Last time it went.
    pub left_at: Option<String>,
    /// How often it came back to the room.
    pub rejoin_count: i64,
    /// `web`, `mobile`, `tablet`.
    pub device_type: Option<&'static str>,
    /// Name of the browser.
    pub browser: Option<String>,
    /// Name of the operating system.
    pub os: Option<String>,
    /// `excellent`, `good`, `poor`.
    pub connection_quality: Option<&'static str>,
    /// Packets of its own that were never came to us, in percent.
    pub packet_loss_percent: Option<f64>,
    /// Bits per second of its video.
    pub avg_video_bitrate: Option<i64>,
    /// Loudness while it spoke, 0 to 1.
    pub avg_audio_level: Option<f64>,
}

/// One thing that happened to a consultation.
#[derive(Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Its id.
    pub event_id: Uuid,
    /// What: `started`, `patient_joined`, `participant.reconnecting`, `ended` …
    pub event_type: String,
    /// To whom, if to one person.
    pub user_id: Option<String>,
    /// Status before and after, who asked, and why: `from`, `to`, `actor`, `reason`.
    #[schema(value_type = Object)]
    pub event_data: serde_json::Value,
    /// When.
    pub timestamp: String,
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
    /// Its number in the consultation, from 1; a missing one was deleted.
    pub sequence: i64,
    /// Who wrote it.
    pub sender_id: String,
    /// Its name then.
    pub sender_name: String,
    /// `patient`, `doctor`, `guest`; `system` for lines of the server.
    pub sender_type: String,
    /// The text; beside a picture or file, what was written to it.
    pub content: String,
    /// `text`, `image`, `file`, `system`.
    pub message_type: String,
    /// When it was stored.
    pub timestamp: String,
    /// `sent`, `delivered`, `read`: how far the first of the others has come.
    pub status: String,
    /// When it was first on somebody else's device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<String>,
    /// When somebody else first saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_at: Option<String>,
    /// The picture or file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachment: Option<AttachmentView>,
    /// Of a `system` line: what happened, as a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The sender's own id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// The picture or file of a message.
#[derive(Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentView {
    /// Its id.
    pub attachment_id: Uuid,
    /// The sender's name of it, cleaned; to show, not to open.
    pub file_name: String,
    /// Where it is, on this server; takes the same bearer token as the chat.
    pub file_url: String,
    /// In bytes.
    pub file_size: i64,
    /// As its content says.
    pub mime_type: String,
    /// A picture is its own thumbnail: the server decodes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumbnail_url: Option<String>,
    /// Of a picture, in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    /// Of a picture, in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
}

/// Who looks at a consultation: a waiting person sees less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Viewer<'a> {
    /// The doctor, a service, an administrator.
    Staff,
    /// A person who was let in: it sees everyone, and nobody's details.
    Everything,
    /// A person who was not let in: it sees itself and the doctor.
    Outside(&'a str),
}

impl Viewer<'_> {
    /// May this viewer see this person?
    pub(crate) fn sees(self, consultation: &Consultation, person: &Person) -> bool {
        match self {
            Self::Staff | Self::Everything => true,
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
        connection_lost: person.connection_lost,
        details: (viewer == Viewer::Staff).then(|| details(person)),
    })
    .collect()
}

fn details(person: &Person) -> PersonDetails {
    PersonDetails {
        joined_at: person.joined_at.map(time),
        left_at: person.left_at.map(time),
        rejoin_count: person.rejoin_count,
        device_type: person.device.kind.map(DeviceKind::as_str),
        browser: person.device.browser.clone(),
        os: person.device.os.clone(),
        connection_quality: person.figures.quality().map(Quality::as_str),
        packet_loss_percent: person.figures.packet_loss_percent,
        avg_video_bitrate: person.figures.video_bitrate_bps,
        avg_audio_level: person.figures.audio_level,
    }
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
        started_by: consultation.started_by.clone(),
        both_connected_at: consultation.both_connected_at.map(time),
        paused_seconds: consultation.paused_seconds,
        paused_since: consultation.paused_at.map(time),
        total_duration_seconds: consultation.duration_seconds,
        duration_seconds: consultation.duration_seconds,
        end_reason: consultation.end_reason.clone(),
        ended_by: consultation.ended_by.clone(),
        ended_by_role: consultation.ended_by_role.map(PersonRole::as_str),
        max_participants: consultation.max_participants,
    }
}

/// A row of what happened.
pub(crate) fn event(row: EventRow) -> EventView {
    EventView {
        event_id: row.id,
        event_type: row.event_type,
        user_id: row.user_id,
        event_data: row.event_data.0,
        timestamp: time(row.created_at),
    }
}

/// A stored message as everyone sees it.
pub(crate) fn message(row: MessageRow) -> MessageView {
    let attachment = attachment(&row);
    MessageView {
        message_id: row.id,
        session_id: row.session_id,
        sequence: row.sequence,
        sender_id: row.sender_id,
        sender_name: row.sender_name,
        sender_type: row.sender_type,
        content: row.content,
        message_type: row.message_type,
        timestamp: time(row.created_at),
        status: row.status,
        delivered_at: row.delivered_at.map(time),
        read_at: row.read_at.map(time),
        attachment,
        event: row.system_event,
        client_id: row.client_id,
    }
}

fn attachment(row: &MessageRow) -> Option<AttachmentView> {
    let id = row.attachment_id?;
    let mime_type = row.mime_type.clone()?;
    let session = row.session_id;
    let url = format!("/api/v1/consultations/sessions/{session}/attachments/{id}");
    Some(AttachmentView {
        attachment_id: id,
        file_name: row.file_name.clone()?,
        thumbnail_url: mime_type.starts_with("image/").then(|| url.clone()),
        file_url: url,
        file_size: row.size_bytes?,
        mime_type,
        width: row.width,
        height: row.height,
    })
}
