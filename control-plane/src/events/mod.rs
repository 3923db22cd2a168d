//! Events: what others are told of consultations, and what others tell us.
//!
//! An [`Event`] is a plain fact in our own words. It is stored in the outbox in the same
//! transaction as the change it tells of, and each sink encodes it in the words of its contract
//! (`encode`). Nothing is told that was not stored, and nothing stored stays untold.

pub(crate) mod amqp;
pub(crate) mod asyncapi;
pub(crate) mod encode;
pub(crate) mod inbound;
pub(crate) mod kafka;
pub(crate) mod relay;
pub(crate) mod replay;
pub(crate) mod rooms;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod webhooks;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::ControlConfig;
use crate::consultation::{
    Consultation, Happening, Mode, PersonRole, Presence, Status, Transition,
};
use crate::control::Control;

/// Something that others are told. One row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Rises with time; the message id at every sink.
    pub(crate) id: Uuid,
    /// When it happened.
    pub(crate) at: DateTime<Utc>,
    /// Whose it is.
    pub(crate) clinic: String,
    /// Ties it to what caused it, where that had an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) correlation_id: Option<String>,
    /// The consultation as it was then; none where there is none (a failed creation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) about: Option<About>,
    /// What happened.
    pub(crate) news: News,
}

/// The consultation as it was when something happened. No names: those are personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) session_id: Uuid,
    pub(crate) appointment_id: Option<String>,
    pub(crate) patient_id: String,
    pub(crate) doctor_id: String,
    pub(crate) mode: Mode,
    pub(crate) room_name: String,
    pub(crate) status: Status,
    pub(crate) scheduled_start: DateTime<Utc>,
    pub(crate) scheduled_minutes: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) actual_start: Option<DateTime<Utc>>,
    pub(crate) actual_end: Option<DateTime<Utc>>,
    pub(crate) duration_seconds: Option<i64>,
    pub(crate) end_reason: Option<String>,
    pub(crate) is_recorded: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum News {
    /// A consultation was made.
    SessionCreated {},
    /// A consultation could not be made.
    CreationFailed {
        /// The appointment that asked for it.
        appointment_id: String,
        /// Why, in words without personal data.
        error: String,
    },
    /// The patient is in the waiting room.
    PatientWaiting {},
    /// It began.
    SessionStarted {
        /// Who began it; none = the server, because somebody was let in or both were there.
        by: Option<String>,
        /// What that person is.
        by_role: Option<PersonRole>,
    },
    /// Doctor and patient are connected for the first time.
    BothConnected {},
    /// It was interrupted.
    Paused {},
    /// It goes on.
    Resumed {},
    /// It is over: completed, cancelled or nobody came (see the status).
    Ended {
        /// Who ended it; none = the server.
        by: Option<String>,
        /// What that person is.
        by_role: Option<PersonRole>,
    },
    /// A technical failure ended it.
    Failed {
        /// What failed.
        error: String,
    },
    /// Somebody was given a room token.
    TokenGenerated {
        /// Who.
        user_id: String,
        /// What that person is.
        role: PersonRole,
    },
    /// Somebody reported a technical issue.
    IssueReported {
        /// Who.
        user_id: String,
        /// `audio`, `video`, `connection`, `other`.
        issue: String,
        /// In the reporter's words.
        description: Told,
    },
    /// The patient may be asked how it was.
    FeedbackRequested {},
    /// The patient said how it was.
    FeedbackSubmitted {
        /// 1 to 5.
        overall_rating: i64,
        /// Would the patient recommend the doctor?
        would_recommend: Option<bool>,
        /// Lower-case tags.
        tags: Vec<String>,
    },
    /// Something happened in a room. Only those who listen to rooms get it, as it is.
    Room {
        /// What, in the words of their receivers.
        name: String,
        /// Stands for the room.
        room: Uuid,
        /// The message, signed when it is sent.
        body: Told,
    },
}

/// Text in a person's own words: it travels to the sinks and never to a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Told(pub(crate) String);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told(..)")
    }
}

impl News {
    /// The name in the outbox and over the API.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::SessionCreated {} => "consultation.session.created",
            Self::CreationFailed { .. } => "consultation.session.creation.failed",
            Self::PatientWaiting {} => "consultation.waiting.patient",
            Self::SessionStarted { .. } => "consultation.session.started",
            Self::BothConnected {} => "consultation.started",
            Self::Paused {} => "consultation.paused",
            Self::Resumed {} => "consultation.resumed",
            Self::Ended { .. } => "consultation.ended",
            Self::Failed { .. } => "consultation.failed",
            Self::TokenGenerated { .. } => "consultation.token.generated",
            Self::IssueReported { .. } => "consultation.issue.reported",
            Self::FeedbackRequested {} => "consultation.feedback.requested",
            Self::FeedbackSubmitted { .. } => "consultation.feedback.submitted",
            Self::Room { .. } => "room",
        }
    }
}

impl About {
    /// What is told of a consultation.
    pub(crate) fn of(consultation: &Consultation) -> Self {
        Self {
            session_id: consultation.id,
            appointment_id: consultation.appointment_id.clone(),
            patient_id: consultation.patient_id.clone(),
            doctor_id: consultation.doctor_id.clone(),
            mode: consultation.mode,
            room_name: consultation.room_name.clone(),
            status: consultation.status,
            scheduled_start: consultation.scheduled_start,
            scheduled_minutes: consultation.scheduled_minutes,
            created_at: consultation.created_at,
            actual_start: consultation.actual_start,
            actual_end: consultation.actual_end,
            duration_seconds: consultation.duration_seconds,
            end_reason: consultation.end_reason.clone(),
            is_recorded: false,
        }
    }
}

impl Event {
    /// Something that happened to a consultation.
    pub(crate) fn of(consultation: &Consultation, at: DateTime<Utc>, news: News) -> Self {
        Self {
            id: Uuid::now_v7(),
            at,
            clinic: consultation.clinic.clone(),
            correlation_id: None,
            about: Some(About::of(consultation)),
            news,
        }
    }

    /// The consultation it is about, or the room.
    pub(crate) fn session_id(&self) -> Option<Uuid> {
        if let News::Room { room, .. } = &self.news {
            return Some(*room);
        }
        self.about.as_ref().map(|about| about.session_id)
    }
}

/// Where events go. Only sinks that are configured get a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sink {
    /// The message broker.
    RabbitMq,
    /// The event log.
    Kafka,
    /// A URL of somebody's, by the name it has in the configuration.
    Webhook(String),
}

impl Sink {
    /// The word in the tables.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::RabbitMq => "rabbitmq".to_owned(),
            Self::Kafka => "kafka".to_owned(),
            Self::Webhook(name) => format!("webhook:{name}"),
        }
    }
}

/// Where events go by this configuration.
pub(crate) fn sinks(config: &ControlConfig) -> Vec<Sink> {
    let rabbitmq = config.rabbitmq.iter().map(|_| Sink::RabbitMq);
    let kafka = config.kafka.iter().map(|_| Sink::Kafka);
    let webhooks = config.webhooks.iter().filter(|hook| !hook.is_about_rooms());
    rabbitmq.chain(kafka).chain(webhooks.map(webhooks::Webhook::sink)).collect()
}

/// Where it goes what rooms tell.
pub(crate) fn room_sinks(config: &ControlConfig) -> Vec<Sink> {
    let webhooks = config.webhooks.iter().filter(|hook| hook.is_about_rooms());
    webhooks.map(webhooks::Webhook::sink).collect()
}

/// Starts what takes events to others. They end with the set.
pub(crate) fn start(control: &Arc<Control>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(replay::keep(Arc::clone(control)));
    tasks.spawn(rooms::keep(Arc::clone(control)));
    if let Some(rabbitmq) = control.config.rabbitmq.clone() {
        tasks.spawn(amqp::run(Arc::clone(control), rabbitmq));
    }
    if let Some(kafka) = control.config.kafka.clone() {
        tasks.spawn(kafka::run(Arc::clone(control), kafka));
    }
    for endpoint in control.config.webhooks.clone() {
        tasks.spawn(webhooks::run(Arc::clone(control), endpoint));
    }
    tasks
}

/// What a stored change tells others, in the order it happened.
pub(crate) fn told_by(after: &Consultation, made: &[Transition]) -> Vec<Event> {
    made.iter()
        .flat_map(|transition| {
            let news = news_of(after, transition);
            news.into_iter().map(|news| Event::of(after, transition.at, news))
        })
        .collect()
}

fn news_of(after: &Consultation, transition: &Transition) -> Vec<News> {
    let by = transition.actor.id().map(str::to_owned);
    let by_role = after.role_of_actor(&transition.actor);
    match transition.happening {
        Happening::Created => vec![News::SessionCreated {}],
        Happening::PatientJoined => {
            let patient = after.person(&after.patient_id);
            let waits = patient.is_some_and(|person| person.presence == Presence::Waiting);
            if waits { vec![News::PatientWaiting {}] } else { Vec::new() }
        }
        Happening::Started => vec![News::SessionStarted { by, by_role }],
        Happening::Paused => vec![News::Paused {}],
        Happening::Resumed => vec![News::Resumed {}],
        Happening::BothConnected => vec![News::BothConnected {}],
        Happening::Failed => {
            let error = transition.reason.clone().unwrap_or_default();
            vec![News::Failed { error }]
        }
        Happening::Ended => match transition.to {
            Status::Completed => {
                vec![News::Ended { by, by_role }, News::FeedbackRequested {}]
            }
            Status::Scheduled
            | Status::Waiting
            | Status::InProgress
            | Status::Paused
            | Status::Cancelled
            | Status::NoShow
            | Status::Failed => vec![News::Ended { by, by_role }],
        },
        Happening::DoctorJoined
        | Happening::GuestJoined
        | Happening::Admitted
        | Happening::SentBack
        | Happening::Left
        | Happening::WentAway
        | Happening::Removed
        | Happening::Connected
        | Happening::Reconnected
        | Happening::Reconnecting
        | Happening::ReconnectAttempt
        | Happening::Disconnected
        | Happening::ConnectionLost
        | Happening::DeviceChanged
        | Happening::Measured
        | Happening::Reopened
        | Happening::Rescheduled
        | Happening::RoomOpened
        | Happening::Muted(..) => Vec::new(),
    }
}
