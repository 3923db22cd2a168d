//! The fields of every message that leaves or comes in, by name.

use serde_json::{Value, json};

/// What a field holds. A `Maybe` is always there and may be null.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Uuid,
    Text,
    MaybeText,
    Time,
    MaybeTime,
    /// UTC to the second, and without saying so.
    Naive,
    Whole,
    MaybeWhole,
    Flag,
    MaybeFlag,
    Texts,
    OneOf(&'static [&'static str]),
    MaybeOneOf(&'static [&'static str]),
}

impl Kind {
    pub(super) fn schema(self) -> Value {
        match self {
            Self::Uuid => json!({ "type": "string", "format": "uuid" }),
            Self::Text => json!({ "type": "string" }),
            Self::MaybeText => json!({ "type": ["string", "null"] }),
            Self::Time => json!({ "type": "string", "format": "date-time" }),
            Self::MaybeTime => json!({ "type": ["string", "null"], "format": "date-time" }),
            Self::Naive => json!({
                "type": "string",
                "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}$",
                "description": "UTC.",
            }),
            Self::Whole => json!({ "type": "integer" }),
            Self::MaybeWhole => json!({ "type": ["integer", "null"] }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::MaybeFlag => json!({ "type": ["boolean", "null"] }),
            Self::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Self::OneOf(words) => json!({ "enum": words }),
            Self::MaybeOneOf(words) => {
                let words = words.iter().map(|word| json!(word)).chain([Value::Null]);
                json!({ "enum": words.collect::<Vec<_>>() })
            }
        }
    }
}

/// Names and kinds.
pub(super) type Fields = &'static [(&'static str, Kind)];

/// A message of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Its name without version.
    pub(super) name: &'static str,
    /// When it is sent.
    pub(super) summary: &'static str,
    /// Is it about a consultation? Then it has that one's ids, too.
    pub(super) about: bool,
    /// What `data` holds beyond the ids.
    pub(super) fields: Fields,
}

/// The ids of a consultation.
pub(super) const IDS: Fields = &[
    ("sessionId", Kind::Uuid),
    ("appointmentId", Kind::MaybeText),
    ("patientId", Kind::Text),
    ("doctorId", Kind::Text),
];

const MODES: &[&str] = &["VIDEO", "AUDIO", "CHAT"];
pub(super) const ROLES: &[&str] = &["doctor", "patient", "guest"];
pub(super) const ENDS: &[&str] = &["COMPLETED", "CANCELLED", "NO_SHOW", "FAILED"];

const BEGUN: [(&str, Kind); 4] = [
    ("consultationMode", Kind::OneOf(MODES)),
    ("actualStartTime", Kind::MaybeTime),
    ("startTime", Kind::MaybeTime),
    ("roomName", Kind::Text),
];

const fn about(name: &'static str, summary: &'static str, fields: Fields) -> Told {
    Told { name, summary, about: true, fields }
}

/// Every event, in the words of log, webhooks and API.
pub(super) const EVENTS: [Told; 13] = [
    about(
        "consultation.session.created",
        "A consultation was made.",
        &[
            ("mode", Kind::OneOf(MODES)),
            ("consultationMode", Kind::OneOf(MODES)),
            ("roomName", Kind::Text),
            ("scheduledStartTime", Kind::Time),
            ("scheduledDurationMinutes", Kind::Whole),
        ],
    ),
    Told {
        name: "consultation.session.creation.failed",
        summary: "A consultation could not be made for an appointment.",
        about: false,
        fields: &[("appointmentId", Kind::Text), ("error", Kind::Text)],
    },
    about("consultation.waiting.patient", "The patient is in the waiting room.", &[]),
    about(
        "consultation.session.started",
        "It began: somebody started it, let somebody in, or both were there.",
        &[
            BEGUN[0],
            BEGUN[1],
            BEGUN[2],
            BEGUN[3],
            ("startedBy", Kind::MaybeText),
            ("startedByRole", Kind::MaybeOneOf(ROLES)),
        ],
    ),
    about("consultation.started", "Doctor and patient are connected for the first time.", &BEGUN),
    about("consultation.paused", "It was interrupted.", &[]),
    about("consultation.resumed", "It goes on.", &[]),
    about(
        "consultation.ended",
        "It is over; `status` says how.",
        &[
            ("actualStartTime", Kind::MaybeTime),
            ("actualEndTime", Kind::MaybeTime),
            ("durationSeconds", Kind::MaybeWhole),
            ("duration", Kind::MaybeWhole),
            ("consultationMode", Kind::OneOf(MODES)),
            ("endReason", Kind::MaybeText),
            ("isRecorded", Kind::Flag),
            ("status", Kind::OneOf(ENDS)),
            ("endedBy", Kind::MaybeText),
            ("endedByRole", Kind::MaybeOneOf(ROLES)),
        ],
    ),
    about("consultation.failed", "A technical failure ended it.", &[("error", Kind::Text)]),
    about(
        "consultation.token.generated",
        "Somebody was given a room token.",
        &[("userId", Kind::Text), ("userRole", Kind::OneOf(ROLES))],
    ),
    about(
        "consultation.issue.reported",
        "Somebody reported a technical issue.",
        &[
            ("userId", Kind::Text),
            ("issueType", Kind::OneOf(&["audio", "video", "connection", "other"])),
            ("description", Kind::Text),
        ],
    ),
    about("consultation.feedback.requested", "The patient may be asked how it was.", &[]),
    about(
        "consultation.feedback.submitted",
        "The patient said how it was.",
        &[
            ("overallRating", Kind::Whole),
            ("rating", Kind::Whole),
            ("wouldRecommend", Kind::MaybeFlag),
            ("feedbackTags", Kind::Texts),
        ],
    ),
];
