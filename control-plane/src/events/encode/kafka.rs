//! Events as the consultation service of the Kafka contract tells them: one envelope with
//! `eventType`, `eventTime`, `source`, `correlationId` and `data`, in camelCase. Webhooks and
//! readers over the API get the same words.
//!
//! Where the contract's table and its examples name one fact differently (`mode` and
//! `consultationMode`, `duration` and `durationSeconds` …), both names are there.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::consultation::PersonRole;
use crate::events::{About, Event, News, Told};
use crate::view::time;

/// Who tells; the contract's word for us.
const SOURCE: &str = "consultation-service";

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KafkaMessage {
    /// Records of one key stay in order: the consultation, or the appointment that got none.
    pub(crate) key: String,
    /// The event's id, the same each time it is sent.
    pub(crate) id: String,
    /// Its name with its version.
    pub(crate) event_type: String,
    /// When it happened.
    pub(crate) at: DateTime<Utc>,
    /// JSON.
    pub(crate) body: Vec<u8>,
}

/// The name with the version of its words.
pub(crate) fn event_type(news: &News) -> String {
    format!("{}.v1", news.name())
}

/// The event as a record.
pub(crate) fn encode(event: &Event) -> KafkaMessage {
    let body = serde_json::to_vec(&envelope(event)).expect("JSON values are representable in JSON");
    KafkaMessage {
        key: key(event),
        id: event.id.to_string(),
        event_type: event_type(&event.news),
        at: event.at,
        body,
    }
}

fn key(event: &Event) -> String {
    match (&event.about, &event.news) {
        (Some(about), _) => about.session_id.to_string(),
        (None, News::CreationFailed { appointment_id, .. }) => appointment_id.clone(),
        (None, _) => event.id.to_string(),
    }
}

/// The event as a JSON object.
pub(crate) fn envelope(event: &Event) -> Map<String, Value> {
    // Everything about one consultation is tied together, even where nobody gave an id for that.
    let correlation_id = event.correlation_id.clone().unwrap_or_else(|| key(event));
    let mut envelope = Map::new();
    let mut put = |name: &str, value: Value| envelope.insert(name.to_owned(), value);
    put("eventType", Value::String(event_type(&event.news)));
    put("eventTime", Value::String(time(event.at)));
    put("source", Value::String(SOURCE.to_owned()));
    put("correlationId", Value::String(correlation_id));
    put("clinicId", Value::String(event.clinic.clone()));
    put("data", Value::Object(data(event)));
    envelope
}

/// What happened to which consultation.
fn data(event: &Event) -> Map<String, Value> {
    let mut data = match &event.about {
        Some(about) => ids(about),
        None => Map::new(),
    };
    data.extend(facts(event));
    data
}

fn ids(about: &About) -> Map<String, Value> {
    object(json!({
        "sessionId": about.session_id,
        "appointmentId": about.appointment_id,
        "patientId": about.patient_id,
        "doctorId": about.doctor_id,
    }))
}

/// What an event says beyond whose consultation it is.
fn facts(event: &Event) -> Map<String, Value> {
    let about = event.about.as_ref();
    match &event.news {
        News::SessionCreated {} => about.map(planned).unwrap_or_default(),
        News::CreationFailed { appointment_id, error } => {
            object(json!({ "appointmentId": appointment_id, "error": error }))
        }
        News::PatientWaiting {}
        | News::Paused {}
        | News::Resumed {}
        | News::FeedbackRequested {}
        // Who listens to rooms gets a message of another form.
        | News::Room { .. } => Map::new(),
        News::SessionStarted { by, by_role } => {
            let mut facts = about.map(begun).unwrap_or_default();
            facts.extend(object(json!({
                "startedBy": by,
                "startedByRole": by_role.map(PersonRole::as_str),
            })));
            facts
        }
        News::BothConnected {} => about.map(begun).unwrap_or_default(),
        News::Ended { by, by_role } => {
            let mut facts = about.map(over).unwrap_or_default();
            facts.extend(object(json!({
                "endedBy": by,
                "endedByRole": by_role.map(PersonRole::as_str),
            })));
            facts
        }
        News::Failed { error } => object(json!({ "error": error })),
        News::TokenGenerated { user_id, role } => {
            object(json!({ "userId": user_id, "userRole": role.as_str() }))
        }
        News::IssueReported { user_id, issue, description: Told(description) } => object(json!({
            "userId": user_id,
            "issueType": issue,
            "description": description,
        })),
        News::FeedbackSubmitted { overall_rating, would_recommend, tags } => object(json!({
            "overallRating": overall_rating,
            "rating": overall_rating,
            "wouldRecommend": would_recommend,
            "feedbackTags": tags,
        })),
    }
}

fn planned(about: &About) -> Map<String, Value> {
    object(json!({
        "mode": about.mode.as_str(),
        "consultationMode": about.mode.as_str(),
        "roomName": about.room_name,
        "scheduledStartTime": time(about.scheduled_start),
        "scheduledDurationMinutes": about.scheduled_minutes,
    }))
}

fn begun(about: &About) -> Map<String, Value> {
    object(json!({
        "consultationMode": about.mode.as_str(),
        "actualStartTime": about.actual_start.map(time),
        "startTime": about.actual_start.map(time),
        "roomName": about.room_name,
    }))
}

fn over(about: &About) -> Map<String, Value> {
    object(json!({
        "actualStartTime": about.actual_start.map(time),
        "actualEndTime": about.actual_end.map(time),
        "durationSeconds": about.duration_seconds,
        "duration": about.duration_seconds,
        "consultationMode": about.mode.as_str(),
        "endReason": about.end_reason,
        "isRecorded": about.is_recorded,
        "status": about.status.as_str(),
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::samples;

    #[test]
    fn every_event_has_its_golden_message() {
        for event in samples::all() {
            let message = encode(&event);
            let body = serde_json::from_slice(&message.body).unwrap();
            crate::testing::golden(&format!("kafka/{}.json", message.event_type), &body);
        }
    }

    /// The examples of the contract (EV-20, EV-21, EV-23), field by field.
    #[test]
    fn the_contracts_examples_are_inside() {
        let examples = [
            json!({
                "eventType": "consultation.started.v1", "eventTime": "2026-01-30T14:30:00.000Z",
                "source": "consultation-service", "correlationId": "corr-123",
                "data": {
                    "appointmentId": "appt-uuid", "patientId": "patient-uuid",
                    "doctorId": "doctor-uuid", "consultationMode": "VIDEO",
                    "actualStartTime": "2026-01-30T14:30:00.000Z", "roomName": "room-12345",
                },
            }),
            json!({
                "eventType": "consultation.ended.v1", "eventTime": "2026-01-30T14:45:00.000Z",
                "source": "consultation-service", "correlationId": "corr-123",
                "data": {
                    "appointmentId": "appt-uuid", "patientId": "patient-uuid",
                    "doctorId": "doctor-uuid", "actualStartTime": "2026-01-30T14:30:00.000Z",
                    "actualEndTime": "2026-01-30T14:45:00.000Z", "durationSeconds": 900,
                    "consultationMode": "VIDEO", "endReason": "completed", "isRecorded": false,
                },
            }),
            json!({
                "eventType": "consultation.feedback.submitted.v1",
                "eventTime": "2026-01-30T14:50:00.000Z", "source": "consultation-service",
                "data": {
                    "doctorId": "doctor-uuid", "patientId": "patient-uuid", "overallRating": 5,
                    "wouldRecommend": true, "feedbackTags": ["professional", "helpful"],
                },
            }),
        ];
        for example in examples {
            let same = |event: &&Event| event_type(&event.news) == example["eventType"];
            let event = samples::all().iter().find(same).cloned().expect("a sample");
            let ours = Value::Object(envelope(&event));
            for (name, value) in example.as_object().unwrap() {
                match value {
                    Value::Object(data) => {
                        for (name, value) in data {
                            assert_eq!(ours["data"][name], *value, "{name}");
                        }
                        assert_eq!(ours["data"]["sessionId"], json!(samples::about().session_id));
                    }
                    value => assert_eq!(ours[name], *value, "{name}"),
                }
            }
        }
    }

    #[test]
    fn events_of_one_consultation_share_a_key() {
        let session = samples::about().session_id.to_string();
        for event in samples::all() {
            let expected = if event.about.is_some() { session.as_str() } else { "appt-uuid" };
            assert_eq!(encode(&event).key, expected);
            assert_eq!(encode(&event), encode(&event));
        }
    }
}
