//! Every event as a golden file, and the contract's own examples beside ours.

use chrono::TimeZone as _;

use super::*;
use crate::consultation::Mode;
use crate::testing::golden;

fn at(minute: u32, second: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 25, 14, minute, second).unwrap()
}

fn about(status: Status) -> About {
    let over = status.is_over().then(|| at(30, 0));
    About {
        session_id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
        appointment_id: Some("uuid-string".to_owned()),
        patient_id: "pat456".to_owned(),
        doctor_id: "doc123".to_owned(),
        mode: Mode::Video,
        room_name: "consultation-3f9a".to_owned(),
        status,
        scheduled_start: at(0, 0),
        scheduled_minutes: 15,
        created_at: Utc.with_ymd_and_hms(2026, 1, 24, 10, 30, 5).unwrap(),
        actual_start: (status != Status::Scheduled).then(|| at(0, 0)),
        actual_end: over,
        duration_seconds: over.map(|_| 1800),
        end_reason: over.map(|_| "completed".to_owned()),
        is_recorded: false,
    }
}

fn event(status: Status, news: News) -> Event {
    Event {
        id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00ff),
        at: at(0, 5),
        clinic: "demo".to_owned(),
        correlation_id: Some("c-1".to_owned()),
        about: Some(about(status)),
        news,
    }
}

/// One of each kind; what it shows is in the golden file of its name.
fn every_event() -> Vec<Event> {
    let doctor = || (Some("doc123".to_owned()), Some(PersonRole::Doctor));
    let (by, by_role) = doctor();
    let started = News::SessionStarted { by, by_role };
    let (by, by_role) = doctor();
    let ended = News::Ended { by, by_role };
    let failed = News::CreationFailed {
        appointment_id: "uuid-string".to_owned(),
        error: "scheduled_time is missing".to_owned(),
    };
    vec![
        event(Status::Scheduled, News::SessionCreated {}),
        Event { about: None, ..event(Status::Scheduled, failed) },
        event(Status::Waiting, News::PatientWaiting {}),
        event(Status::InProgress, started),
        event(Status::InProgress, News::BothConnected {}),
        event(Status::Paused, News::Paused {}),
        event(Status::InProgress, News::Resumed {}),
        event(Status::Completed, ended),
        event(Status::Failed, News::Failed { error: "no media node answers".to_owned() }),
        event(
            Status::InProgress,
            News::TokenGenerated { user_id: "pat456".to_owned(), role: PersonRole::Patient },
        ),
        event(
            Status::InProgress,
            News::IssueReported {
                user_id: "pat456".to_owned(),
                issue: "audio".to_owned(),
                description: Told("I hear an echo.".to_owned()),
            },
        ),
        event(Status::Completed, News::FeedbackRequested {}),
        event(
            Status::Completed,
            News::FeedbackSubmitted {
                overall_rating: 5,
                would_recommend: Some(true),
                tags: vec!["on-time".to_owned()],
            },
        ),
    ]
}

const LINK: &str = "https://clinic.example/visit#c2VjcmV0";

fn shown(messages: &[RabbitMessage]) -> Value {
    let shown = messages.iter().map(|message| {
        json!({
            "routing_key": message.routing_key,
            "message_id": message.id,
            "correlation_id": message.correlation_id,
            "mandatory": message.must_arrive,
            "body": serde_json::from_slice::<Value>(&message.body).unwrap(),
        })
    });
    shown.collect()
}

#[test]
fn every_event_is_as_its_golden_file_says() {
    let events = every_event();
    let mut names: Vec<&str> = events.iter().map(|event| event.news.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 13, "a kind of news has no golden file");
    for event in events {
        let link = needs_link(&event).map(|_| LINK);
        golden(&format!("rabbitmq/{}.json", event.news.name()), &shown(&encode(&event, link)));
    }
}

/// The guide's own examples: every field of theirs is in ours, with the same kind of value.
#[test]
fn the_guides_examples_are_kept() {
    let examples = [
        (
            0,
            json!({"event_type": "video.session.created", "timestamp": "2026-01-24T10:30:05",
            "data": {"appointment_id": "uuid-string", "session_id": "s", "meeting_id": "m",
                "attendee_url": "u", "status": "created", "created_at": "2026-01-24T10:30:05"}}),
        ),
        (
            1,
            json!({"event_type": "video.session.creation.failed",
            "data": {"appointment_id": "uuid-string", "error": "e"}}),
        ),
        (
            3,
            json!({"event_type": "video.session.started",
            "data": {"session_id": "s", "appointment_id": "uuid-string", "started_by": "doc123",
                "started_at": "2026-01-25T14:00:00"}}),
        ),
        (
            7,
            json!({"event_type": "video.session.completed",
            "data": {"session_id": "s", "appointment_id": "uuid-string", "ended_by": "doc123",
                "ended_by_role": "doctor", "ended_at": "2026-01-25T14:30:00"}}),
        ),
    ];
    for (index, example) in examples {
        let event = &every_event()[index];
        let message = encode(event, needs_link(event).map(|_| LINK)).swap_remove(0);
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        assert_eq!(message.routing_key, example["event_type"]);
        assert_eq!(body["event_type"], example["event_type"]);
        for (field, value) in example["data"].as_object().unwrap() {
            let ours = &body["data"][field];
            assert!(ours.is_string(), "{field} of {}", message.routing_key);
            // Times and the fixed ids are the example's own.
            if !matches!(value.as_str().unwrap(), "s" | "m" | "u" | "e") {
                assert_eq!(ours, value, "{field} of {}", message.routing_key);
            }
        }
    }
}

#[test]
fn appointments_are_told_only_what_is_theirs() {
    let mut adhoc = event(Status::Scheduled, News::SessionCreated {});
    adhoc.about.as_mut().unwrap().appointment_id = None;
    assert_eq!(needs_link(&adhoc), None);
    assert_eq!(encode(&adhoc, None), Vec::new());
    // Not completed: the appointment must not become so.
    for status in [Status::Cancelled, Status::NoShow] {
        let ended = event(status, News::Ended { by: None, by_role: None });
        let keys: Vec<_> = encode(&ended, None).iter().map(|message| message.routing_key).collect();
        assert_eq!(keys, ["video.consultation.ended"]);
    }
}

#[test]
fn two_messages_of_one_event_have_two_ids_that_stay() {
    let started = &every_event()[3];
    let messages = encode(started, None);
    assert_eq!(messages.len(), 2);
    assert_ne!(messages[0].id, messages[1].id);
    assert_eq!(messages, encode(started, None));
}
