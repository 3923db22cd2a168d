//! Events as RabbitMQ messages.
//!
//! Two families leave here. `video.session.*` answers the appointment service, in its snake_case
//! envelope; only consultations that have an appointment are told this way. `video.consultation.*`
//! and its kin tell whoever listens, flat and in camelCase. One event may be both.
//!
//! Times are what the first contract shows, UTC without a zone to the second, because readers
//! parse them into types that know no zone; each has a `…_utc` (`…Utc`) twin that says so. Nothing
//! is named that we do not know: a `meeting_id` is the name of our own room.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::consultation::{PersonRole, Status};
use crate::events::{About, Event, News, Told};

/// One message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RabbitMessage {
    /// Rises with its event; the same each time the event is published.
    pub(crate) id: Uuid,
    /// Its address at the exchange, and its type.
    pub(crate) routing_key: &'static str,
    /// Somebody must get it: if no queue does, it is not sent.
    pub(crate) must_arrive: bool,
    /// Ties it to what caused it.
    pub(crate) correlation_id: Option<String>,
    /// JSON.
    pub(crate) body: Vec<u8>,
    /// When it happened.
    pub(crate) at: DateTime<Utc>,
}

/// Whose consultation's join link the encoder needs, if any.
pub(crate) fn needs_link(event: &Event) -> Option<&About> {
    match &event.news {
        News::SessionCreated {} => event.about.as_ref().filter(|a| a.appointment_id.is_some()),
        News::CreationFailed { .. }
        | News::PatientWaiting {}
        | News::SessionStarted { .. }
        | News::BothConnected {}
        | News::Paused {}
        | News::Resumed {}
        | News::Ended { .. }
        | News::Failed { .. }
        | News::TokenGenerated { .. }
        | News::IssueReported { .. }
        | News::FeedbackRequested {}
        | News::FeedbackSubmitted { .. }
        | News::Room { .. } => None,
    }
}

/// Everything that an event is published as. `attendee_url` is the patient's join link; it is asked
/// for by [`needs_link`].
pub(crate) fn encode(event: &Event, attendee_url: Option<&str>) -> Vec<RabbitMessage> {
    let mut out = Out { event, messages: Vec::new() };
    if let News::CreationFailed { appointment_id, error } = &event.news {
        let data = json!({ "appointment_id": appointment_id, "error": error });
        out.answer("video.session.creation.failed", data);
    }
    if let Some(about) = &event.about {
        if let Some(appointment_id) = &about.appointment_id {
            answers(&mut out, about, appointment_id, attendee_url);
        }
        broadcasts(&mut out, about);
    }
    out.messages
}

/// What the appointment service is told.
fn answers(out: &mut Out<'_>, about: &About, appointment_id: &str, attendee_url: Option<&str>) {
    let session_id = about.session_id;
    match &out.event.news {
        News::SessionCreated {} => {
            let mut data = object(json!({
                "appointment_id": appointment_id,
                "session_id": session_id,
                "meeting_id": about.room_name,
                "attendee_url": attendee_url,
                "status": "created",
                "scheduled_start_utc": zoned(about.scheduled_start),
            }));
            stamp(&mut data, "created_at", "created_at_utc", about.created_at);
            out.answer("video.session.created", Value::Object(data));
        }
        News::SessionStarted { by, .. } => {
            let mut data = object(json!({
                "session_id": session_id,
                "appointment_id": appointment_id,
                "started_by": by,
            }));
            let started = about.actual_start.unwrap_or(out.event.at);
            stamp(&mut data, "started_at", "started_at_utc", started);
            out.answer("video.session.started", Value::Object(data));
        }
        // Its reader sets the appointment to completed, so the others are no case for it.
        News::Ended { by, by_role } if about.status == Status::Completed => {
            let mut data = object(json!({
                "session_id": session_id,
                "appointment_id": appointment_id,
                "ended_by": by,
                "ended_by_role": by_role.map(PersonRole::as_str),
                "duration_seconds": about.duration_seconds,
            }));
            let ended = about.actual_end.unwrap_or(out.event.at);
            stamp(&mut data, "ended_at", "ended_at_utc", ended);
            out.answer("video.session.completed", Value::Object(data));
        }
        News::CreationFailed { .. }
        | News::PatientWaiting {}
        | News::BothConnected {}
        | News::Paused {}
        | News::Resumed {}
        | News::Ended { .. }
        | News::Failed { .. }
        | News::TokenGenerated { .. }
        | News::IssueReported { .. }
        | News::FeedbackRequested {}
        | News::FeedbackSubmitted { .. }
        | News::Room { .. } => {}
    }
}

/// What whoever listens is told.
fn broadcasts(out: &mut Out<'_>, about: &About) {
    let event = out.event;
    match &event.news {
        // Its answer says all; without an appointment nobody waits for it.
        News::SessionCreated {} | News::CreationFailed { .. } | News::Room { .. } => {}
        News::PatientWaiting {} => {
            out.tell("video.consultation.waiting", json!({ "patientId": about.patient_id }));
        }
        News::SessionStarted { by, by_role } => out.tell(
            "video.consultation.started",
            json!({
                "userId": by,
                "userRole": by_role.map(PersonRole::as_str),
                "provider": OWN,
            }),
        ),
        News::BothConnected {} => out.tell("video.consultation.connected", json!({})),
        News::Paused {} => out.tell("video.consultation.paused", json!({})),
        News::Resumed {} => out.tell("video.consultation.resumed", json!({})),
        News::Ended { by, by_role } => out.tell(
            "video.consultation.ended",
            json!({
                "duration": about.duration_seconds,
                "userId": by,
                "userRole": by_role.map(PersonRole::as_str),
                "status": about.status.as_str(),
                "endReason": about.end_reason,
            }),
        ),
        News::Failed { error } => out.tell(
            "video.consultation.failed",
            json!({ "error": error, "duration": about.duration_seconds }),
        ),
        News::TokenGenerated { user_id, role } => out.tell(
            "video.token.generated",
            json!({ "userId": user_id, "userRole": role.as_str(), "provider": OWN }),
        ),
        News::IssueReported { user_id, issue, description: Told(description) } => out.tell(
            "video.technical.issue.reported",
            json!({ "userId": user_id, "issueType": issue, "description": description }),
        ),
        News::FeedbackRequested {} => out.tell(
            "video.consultation.feedback.requested",
            json!({ "patientId": about.patient_id, "doctorId": about.doctor_id }),
        ),
        News::FeedbackSubmitted { overall_rating, would_recommend, tags } => out.tell(
            "video.consultation.feedback.submitted",
            json!({
                "patientId": about.patient_id,
                "doctorId": about.doctor_id,
                "overallRating": overall_rating,
                "wouldRecommend": would_recommend,
                "feedbackTags": tags,
            }),
        ),
    }
}

/// Our own nodes carry the media.
const OWN: &str = "own";

struct Out<'a> {
    event: &'a Event,
    messages: Vec<RabbitMessage>,
}

impl Out<'_> {
    fn answer(&mut self, routing_key: &'static str, data: Value) {
        let mut body = object(json!({ "event_type": routing_key, "data": data }));
        stamp(&mut body, "timestamp", "timestamp_utc", self.event.at);
        self.push(self.event.id, routing_key, true, &body);
    }

    fn tell(&mut self, routing_key: &'static str, facts: Value) {
        let about = self.event.about.as_ref();
        let mut body = object(json!({
            "eventType": routing_key,
            "appointmentId": about.and_then(|about| about.appointment_id.clone()),
            "sessionId": about.map(|about| about.session_id),
        }));
        body.extend(object(facts));
        stamp(&mut body, "timestamp", "timestampUtc", self.event.at);
        // A reader that remembers ids must not take the event's second message for its first.
        let id = if self.messages.is_empty() { self.event.id } else { second_id(self.event.id) };
        self.push(id, routing_key, false, &body);
    }

    fn push(&mut self, id: Uuid, routing_key: &'static str, must: bool, body: &Map<String, Value>) {
        self.messages.push(RabbitMessage {
            id,
            routing_key,
            must_arrive: must,
            correlation_id: self.event.correlation_id.clone(),
            body: serde_json::to_vec(body).expect("JSON values are representable in JSON"),
            at: self.event.at,
        });
    }
}

/// Made from the first, so that it is the same each time: a v8 UUID (RFC 9562 §5.8).
fn second_id(id: Uuid) -> Uuid {
    uuid::Builder::from_custom_bytes(*id.as_bytes()).into_uuid()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

/// One time under two names.
fn stamp(object: &mut Map<String, Value>, plain: &str, twin: &str, at: DateTime<Utc>) {
    object.insert(plain.to_owned(), Value::String(at.format("%Y-%m-%dT%H:%M:%S").to_string()));
    object.insert(twin.to_owned(), Value::String(zoned(at)));
}

fn zoned(at: DateTime<Utc>) -> String {
    crate::view::time(at)
}

#[cfg(test)]
mod tests;
