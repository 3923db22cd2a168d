//! What the older contracts answer, each in its own names.
//!
//! All of them show the one consultation that the native API shows. Fields in which a vendor's
//! service told of its own meeting hold the facts of our room; what nobody knows is `null`.

use serde::Serialize;
use uuid::Uuid;

use crate::consultation::{Consultation, Mode, PersonRole};
use crate::sessions::{IceServerView, RoomAccess, socket_url};
use crate::view::{self, PersonView, Viewer};

/// Who carries the media.
pub(super) const PROVIDER: &str = "own";

/// The room of a consultation, where a vendor's meeting would be.
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct MeetingView {
    /// The provider's id of it: the room.
    #[schema(max_length = 100)]
    meeting_id: String,
    /// Our id of it.
    external_meeting_id: Uuid,
    /// The room.
    room_name: String,
    /// Where client SDKs connect to.
    room_url: String,
    /// `own`: our nodes carry the media.
    provider: String,
}

impl MeetingView {
    fn new(consultation: &Consultation, public_url: &str) -> Self {
        Self {
            meeting_id: consultation.room_name.clone(),
            external_meeting_id: consultation.id,
            room_name: consultation.room_name.clone(),
            room_url: socket_url(public_url),
            provider: PROVIDER.to_owned(),
        }
    }
}

/// A session as the booking service's contract has it (`snake_case`).
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct VideoSession {
    /// Our id.
    session_id: Uuid,
    /// The appointment; ad-hoc sessions have none.
    appointment_id: Option<String>,
    /// The provider's id of the meeting.
    #[schema(max_length = 100)]
    meeting_id: String,
    /// The room.
    meeting: MeetingView,
    /// The room.
    #[schema(max_length = 100)]
    room_name: String,
    /// The patient's join link; only for the patient, the doctor and services.
    #[schema(max_length = 500)]
    attendee_url: Option<String>,
    /// `SCHEDULED`, `WAITING`, `IN_PROGRESS`, `PAUSED`, `COMPLETED`, `CANCELLED`, `NO_SHOW`,
    /// `FAILED`.
    status: String,
    /// `VIDEO`, `AUDIO`, `CHAT`.
    consultation_mode: String,
    doctor_id: String,
    doctor_name: String,
    patient_id: String,
    patient_name: String,
    scheduled_time: String,
    scheduled_duration_minutes: i64,
    actual_start_time: Option<String>,
    actual_end_time: Option<String>,
    /// From begin to end, in seconds.
    duration_seconds: Option<i64>,
    end_reason: Option<String>,
    created_at: String,
    /// Everyone who has come, as far as the caller may know.
    participants: Vec<ParticipantView>,
}

/// A person who has come.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ParticipantView {
    user_id: String,
    name: String,
    /// `patient`, `doctor`, `guest`.
    role: &'static str,
    /// `waiting`, `admitted`, `connected`, `reconnecting`, `left`.
    status: &'static str,
}

impl From<PersonView> for ParticipantView {
    fn from(person: PersonView) -> Self {
        Self {
            user_id: person.user_id,
            name: person.name,
            role: person.role,
            status: person.status,
        }
    }
}

impl VideoSession {
    pub(super) fn new(
        consultation: &Consultation,
        viewer: Viewer<'_>,
        public_url: &str,
        attendee_url: Option<String>,
    ) -> Self {
        let people = view::people(consultation, viewer);
        Self {
            session_id: consultation.id,
            appointment_id: consultation.appointment_id.clone(),
            meeting_id: consultation.room_name.clone(),
            meeting: MeetingView::new(consultation, public_url),
            room_name: consultation.room_name.clone(),
            attendee_url,
            status: consultation.status.as_str().to_owned(),
            consultation_mode: consultation.mode.as_str().to_owned(),
            doctor_id: consultation.doctor_id.clone(),
            doctor_name: consultation.doctor_name.reveal().clone(),
            patient_id: consultation.patient_id.clone(),
            patient_name: consultation.patient_name.reveal().clone(),
            scheduled_time: view::time(consultation.scheduled_start),
            scheduled_duration_minutes: consultation.scheduled_minutes,
            actual_start_time: consultation.actual_start.map(view::time),
            actual_end_time: consultation.actual_end.map(view::time),
            duration_seconds: consultation.duration_seconds,
            end_reason: consultation.end_reason.clone(),
            created_at: view::time(consultation.created_at),
            participants: people.into_iter().map(Into::into).collect(),
        }
    }
}

/// Where a join of an older contract led: a room token, or a place in the waiting room.
pub(super) enum Entry<'a> {
    /// Into the room.
    Room(&'a RoomAccess),
    /// Into the waiting room, at this place.
    Waiting(usize),
}

impl Entry<'_> {
    fn token(&self) -> Option<String> {
        match self {
            Self::Room(access) => Some(access.access_token.reveal().clone()),
            Self::Waiting(_) => None,
        }
    }

    fn expires_at(&self) -> Option<String> {
        match self {
            Self::Room(access) => Some(view::time(access.expires_at)),
            Self::Waiting(_) => None,
        }
    }

    const fn position(&self) -> Option<usize> {
        match self {
            Self::Room(_) => None,
            Self::Waiting(position) => Some(*position),
        }
    }

    const fn status(&self) -> &'static str {
        match self {
            Self::Room(_) => "JOINED",
            Self::Waiting(_) => "WAITING",
        }
    }
}

/// Who comes, and what it is given.
pub(super) struct Arrival<'a> {
    pub(super) consultation: &'a Consultation,
    pub(super) user_id: &'a str,
    pub(super) entry: Entry<'a>,
    /// The page of this person.
    pub(super) page: String,
    /// The name of the key that signs room tokens.
    pub(super) api_key: String,
    pub(super) public_url: &'a str,
}

/// The answer to `POST /api/video/sessions/{id}/join`: the token under every name that a client
/// of this contract looks for, `null` while the person waits.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct VideoJoin {
    /// Who the person is in the room.
    attendee_id: String,
    /// The room token; `null` until the doctor has let the person in.
    join_token: Option<String>,
    /// The same token.
    token: Option<String>,
    /// The same token.
    #[serde(rename = "accessToken")]
    access_token: Option<String>,
    /// The name of the key that signed it.
    api_key: String,
    /// The same name.
    #[serde(rename = "apiKey")]
    api_key_again: String,
    /// The person's page.
    #[schema(max_length = 500)]
    attendee_url: String,
    /// The room.
    meeting: MeetingView,
    session_id: Uuid,
    /// The session again, as the id of a call of type `default`.
    call_id: Uuid,
    /// `default`.
    call_type: &'static str,
    /// The room.
    room_name: String,
    /// The room, for clients that want it so.
    #[serde(rename = "roomName")]
    room_name_again: String,
    /// Where client SDKs connect to.
    room_url: String,
    /// `patient`, `doctor`, `guest`.
    role: &'static str,
    /// `JOINED` or `WAITING`.
    status: &'static str,
    /// Place in the waiting room, from 1.
    position: Option<usize>,
    /// The consultation's channel, which tells when the person is let in.
    channel_url: String,
    token_expires_at: Option<String>,
    /// `own`: our nodes carry the media.
    provider: &'static str,
}

impl VideoJoin {
    pub(super) fn new(arrival: &Arrival<'_>) -> Self {
        let consultation = arrival.consultation;
        let token = arrival.entry.token();
        Self {
            attendee_id: arrival.user_id.to_owned(),
            join_token: token.clone(),
            token: token.clone(),
            access_token: token,
            api_key: arrival.api_key.clone(),
            api_key_again: arrival.api_key.clone(),
            attendee_url: arrival.page.clone(),
            meeting: MeetingView::new(consultation, arrival.public_url),
            session_id: consultation.id,
            call_id: consultation.id,
            call_type: "default",
            room_name: consultation.room_name.clone(),
            room_name_again: consultation.room_name.clone(),
            room_url: socket_url(arrival.public_url),
            role: consultation.role_of(arrival.user_id).as_str(),
            status: arrival.entry.status(),
            position: arrival.entry.position(),
            channel_url: channel_url(consultation, arrival.public_url),
            token_expires_at: arrival.entry.expires_at(),
            provider: PROVIDER,
        }
    }
}

/// The answer to `POST /api/video/token` (`VideoTokenResponseDto`).
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VideoToken {
    /// The room token; `null` until the doctor has let the person in.
    token: Option<String>,
    /// The same token.
    access_token: Option<String>,
    /// The same token.
    #[serde(rename = "join_token")]
    join_token: Option<String>,
    /// The name of the key that signed it.
    api_key: String,
    room_name: String,
    /// The room again: here names are ids.
    room_id: String,
    /// The person's page.
    #[schema(max_length = 500)]
    meeting_url: String,
    expires_at: Option<String>,
    session_id: Uuid,
    appointment_id: Option<String>,
    user_id: String,
    /// `patient`, `doctor`, `guest`.
    user_role: &'static str,
    /// `JOINED` or `WAITING`.
    status: &'static str,
    /// Place in the waiting room, from 1.
    position: Option<usize>,
    /// The consultation's channel, which tells when the person is let in.
    channel_url: String,
    /// Where client SDKs connect to.
    url: String,
    ice_servers: Vec<IceServerView>,
    /// `own`: our nodes carry the media.
    provider: &'static str,
}

impl VideoToken {
    pub(super) fn new(arrival: &Arrival<'_>, ice_servers: Vec<IceServerView>) -> Self {
        let consultation = arrival.consultation;
        let token = arrival.entry.token();
        Self {
            token: token.clone(),
            access_token: token.clone(),
            join_token: token,
            api_key: arrival.api_key.clone(),
            room_name: consultation.room_name.clone(),
            room_id: consultation.room_name.clone(),
            meeting_url: arrival.page.clone(),
            expires_at: arrival.entry.expires_at(),
            session_id: consultation.id,
            appointment_id: consultation.appointment_id.clone(),
            user_id: arrival.user_id.to_owned(),
            user_role: consultation.role_of(arrival.user_id).as_str(),
            status: arrival.entry.status(),
            position: arrival.entry.position(),
            channel_url: channel_url(consultation, arrival.public_url),
            url: socket_url(arrival.public_url),
            ice_servers,
            provider: PROVIDER,
        }
    }
}

/// A consultation as the contracts in `camelCase` have it.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VideoConsultation {
    /// Our id.
    id: Uuid,
    /// Our id again.
    session_id: Uuid,
    appointment_id: Option<String>,
    /// The provider's id of the meeting: the room.
    #[schema(max_length = 100)]
    meeting_id: String,
    /// The patient's join link; only for the patient, the doctor and services.
    #[schema(max_length = 500)]
    meeting_link: Option<String>,
    /// The same link.
    #[schema(max_length = 500)]
    meeting_url: Option<String>,
    room_id: String,
    room_name: String,
    /// `SCHEDULED`, `WAITING`, `IN_PROGRESS`, `PAUSED`, `COMPLETED`, `CANCELLED`, `NO_SHOW`,
    /// `FAILED`.
    status: String,
    /// `VIDEO`, `AUDIO`, `CHAT`.
    consultation_mode: String,
    doctor_id: String,
    patient_id: String,
    scheduled_start_time: String,
    scheduled_duration_minutes: i64,
    /// When it began.
    start_time: Option<String>,
    /// The same time.
    actual_start_time: Option<String>,
    /// When it was over.
    end_time: Option<String>,
    /// The same time.
    actual_end_time: Option<String>,
    /// From begin to end, in seconds.
    duration: Option<i64>,
    end_reason: Option<String>,
    participants: Vec<CallPerson>,
    recording_enabled: bool,
    screen_sharing_enabled: bool,
    chat_enabled: bool,
    waiting_room_enabled: bool,
    /// `own`: our nodes carry the media.
    provider: &'static str,
}

/// A person of a call.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallPerson {
    user_id: String,
    /// `HOST` for the doctor, `PARTICIPANT` for others.
    role: &'static str,
    /// First time in the room.
    joined_at: Option<String>,
    /// `waiting`, `admitted`, `connected`, `reconnecting`, `left`.
    status: &'static str,
}

impl VideoConsultation {
    pub(super) fn new(
        consultation: &Consultation,
        viewer: Viewer<'_>,
        link: Option<String>,
    ) -> Self {
        let start = consultation.actual_start.map(view::time);
        let end = consultation.actual_end.map(view::time);
        let people = consultation.people.iter().filter(|person| viewer.sees(consultation, person));
        Self {
            id: consultation.id,
            session_id: consultation.id,
            appointment_id: consultation.appointment_id.clone(),
            meeting_id: consultation.room_name.clone(),
            meeting_link: link.clone(),
            meeting_url: link,
            room_id: consultation.room_name.clone(),
            room_name: consultation.room_name.clone(),
            status: consultation.status.as_str().to_owned(),
            consultation_mode: consultation.mode.as_str().to_owned(),
            doctor_id: consultation.doctor_id.clone(),
            patient_id: consultation.patient_id.clone(),
            scheduled_start_time: view::time(consultation.scheduled_start),
            scheduled_duration_minutes: consultation.scheduled_minutes,
            start_time: start.clone(),
            actual_start_time: start,
            end_time: end.clone(),
            actual_end_time: end,
            duration: consultation.duration_seconds,
            end_reason: consultation.end_reason.clone(),
            participants: people
                .map(|person| CallPerson {
                    user_id: person.user_id.clone(),
                    role: match person.role {
                        PersonRole::Doctor => "HOST",
                        PersonRole::Patient | PersonRole::Guest => "PARTICIPANT",
                    },
                    joined_at: person.joined_at.map(view::time),
                    status: person.presence.as_str(),
                })
                .collect(),
            recording_enabled: false,
            screen_sharing_enabled: consultation.mode == Mode::Video,
            chat_enabled: true,
            waiting_room_enabled: true,
            provider: PROVIDER,
        }
    }
}

fn channel_url(consultation: &Consultation, public_url: &str) -> String {
    let base = socket_url(public_url);
    format!("{base}/api/v1/consultations/sessions/{}/channel", consultation.id)
}
