//! One event of every kind, always the same: what the tests encode.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{About, Event, News, Told};
use crate::consultation::{Mode, PersonRole, Status};

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// The consultation of the contract's example.
pub(crate) fn about() -> About {
    About {
        session_id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
        appointment_id: Some("appt-uuid".to_owned()),
        patient_id: "patient-uuid".to_owned(),
        doctor_id: "doctor-uuid".to_owned(),
        mode: Mode::Video,
        room_name: "room-12345".to_owned(),
        status: Status::InProgress,
        scheduled_start: at("2026-01-30T14:30:00Z"),
        scheduled_minutes: 15,
        created_at: at("2026-01-29T09:00:00Z"),
        actual_start: Some(at("2026-01-30T14:30:00Z")),
        actual_end: None,
        duration_seconds: None,
        end_reason: None,
        is_recorded: false,
    }
}

pub(crate) fn event(at: DateTime<Utc>, about: Option<About>, news: News) -> Event {
    Event {
        id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0002),
        at,
        clinic: "demo".to_owned(),
        correlation_id: Some("corr-123".to_owned()),
        about,
        news,
    }
}

/// Every kind of event.
pub(crate) fn all() -> Vec<Event> {
    let planned = About { status: Status::Scheduled, actual_start: None, ..about() };
    let over = About {
        status: Status::Completed,
        actual_end: Some(at("2026-01-30T14:45:00Z")),
        duration_seconds: Some(900),
        end_reason: Some("completed".to_owned()),
        ..about()
    };
    let failed = About { status: Status::Failed, ..over.clone() };
    let (start, end) = (at("2026-01-30T14:30:00Z"), at("2026-01-30T14:45:00Z"));
    let later = at("2026-01-30T14:50:00Z");
    let of = |at, about: &About, news| event(at, Some(about.clone()), news);
    let error = || "the media engine stopped".to_owned();
    let by = || Some("doctor-uuid".to_owned());
    let by_role = Some(PersonRole::Doctor);
    let user_id = || "patient-uuid".to_owned();
    let running = about();
    let mut submitted = of(
        later,
        &over,
        News::FeedbackSubmitted {
            overall_rating: 5,
            would_recommend: Some(true),
            tags: vec!["professional".to_owned(), "helpful".to_owned()],
        },
    );
    // The contract's example of this one has none.
    submitted.correlation_id = None;
    vec![
        of(planned.created_at, &planned, News::SessionCreated {}),
        event(
            start,
            None,
            News::CreationFailed {
                appointment_id: "appt-uuid".to_owned(),
                error: "scheduled_time cannot be understood".to_owned(),
            },
        ),
        of(start, &planned, News::PatientWaiting {}),
        of(start, &running, News::SessionStarted { by: by(), by_role }),
        of(start, &running, News::BothConnected {}),
        of(start, &running, News::Paused {}),
        of(start, &running, News::Resumed {}),
        of(end, &over, News::Ended { by: by(), by_role }),
        of(end, &failed, News::Failed { error: error() }),
        of(start, &running, News::TokenGenerated { user_id: user_id(), role: PersonRole::Patient }),
        of(
            start,
            &running,
            News::IssueReported {
                user_id: user_id(),
                issue: "audio".to_owned(),
                description: Told("I hear nothing".to_owned()),
            },
        ),
        of(end, &over, News::FeedbackRequested {}),
        submitted,
    ]
}
