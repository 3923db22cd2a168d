//! RabbitMQ's part of the description: a channel for each routing key of the exchange.

use serde_json::{Map, Value, json};

use super::words::{ENDS, Fields, Kind, ROLES};
use super::{object, reference};

/// The exchange, unless the operator names another one.
const EXCHANGE: &str = "appointments-exchange";

/// A message of ours.
struct Told {
    /// Its routing key and `type`.
    key: &'static str,
    summary: &'static str,
    /// Beyond what every message of its family has.
    fields: Fields,
}

/// What the appointment service is told: an envelope in `snake_case`.
const ANSWERS: [Told; 4] = [
    Told {
        key: "video.session.created",
        summary: "The appointment has a consultation; also each time it is asked for again.",
        fields: &[
            ("appointment_id", Kind::Text),
            ("session_id", Kind::Uuid),
            ("meeting_id", Kind::Text),
            ("attendee_url", Kind::MaybeText),
            ("status", Kind::OneOf(&["created"])),
            ("scheduled_start_utc", Kind::Time),
            ("created_at", Kind::Naive),
            ("created_at_utc", Kind::Time),
        ],
    },
    Told {
        key: "video.session.creation.failed",
        summary: "No consultation could be made for the appointment.",
        fields: &[("appointment_id", Kind::Text), ("error", Kind::Text)],
    },
    Told {
        key: "video.session.started",
        summary: "The appointment's consultation has begun.",
        fields: &[
            ("session_id", Kind::Uuid),
            ("appointment_id", Kind::Text),
            ("started_by", Kind::MaybeText),
            ("started_at", Kind::Naive),
            ("started_at_utc", Kind::Time),
        ],
    },
    Told {
        key: "video.session.completed",
        summary: "The appointment's consultation was completed.",
        fields: &[
            ("session_id", Kind::Uuid),
            ("appointment_id", Kind::Text),
            ("ended_by", Kind::MaybeText),
            ("ended_by_role", Kind::MaybeOneOf(ROLES)),
            ("duration_seconds", Kind::MaybeWhole),
            ("ended_at", Kind::Naive),
            ("ended_at_utc", Kind::Time),
        ],
    },
];

const WHO: [(&str, Kind); 2] = [("userId", Kind::MaybeText), ("userRole", Kind::MaybeOneOf(ROLES))];
const PROVIDER: (&str, Kind) = ("provider", Kind::OneOf(&["own"]));

/// What whoever listens is told: flat, in camelCase.
const BROADCASTS: [Told; 11] = [
    Told {
        key: "video.consultation.waiting",
        summary: "The patient is in the waiting room.",
        fields: &[("patientId", Kind::Text)],
    },
    Told {
        key: "video.consultation.started",
        summary: "It has begun.",
        fields: &[WHO[0], WHO[1], PROVIDER],
    },
    Told {
        key: "video.consultation.connected",
        summary: "Doctor and patient are connected for the first time.",
        fields: &[],
    },
    Told { key: "video.consultation.paused", summary: "It was interrupted.", fields: &[] },
    Told { key: "video.consultation.resumed", summary: "It goes on.", fields: &[] },
    Told {
        key: "video.consultation.ended",
        summary: "It is over; `status` says how. `duration` is in seconds.",
        fields: &[
            WHO[0],
            WHO[1],
            ("duration", Kind::MaybeWhole),
            ("status", Kind::OneOf(ENDS)),
            ("endReason", Kind::MaybeText),
        ],
    },
    Told {
        key: "video.consultation.failed",
        summary: "A technical failure ended it.",
        fields: &[("error", Kind::Text), ("duration", Kind::MaybeWhole)],
    },
    Told {
        key: "video.token.generated",
        summary: "Somebody was given a room token.",
        fields: &[("userId", Kind::Text), ("userRole", Kind::OneOf(ROLES)), PROVIDER],
    },
    Told {
        key: "video.technical.issue.reported",
        summary: "Somebody reported a technical issue.",
        fields: &[
            ("userId", Kind::Text),
            ("issueType", Kind::OneOf(&["audio", "video", "connection", "other"])),
            ("description", Kind::Text),
        ],
    },
    Told {
        key: "video.consultation.feedback.requested",
        summary: "The patient may be asked how it was.",
        fields: &[("patientId", Kind::Text), ("doctorId", Kind::Text)],
    },
    Told {
        key: "video.consultation.feedback.submitted",
        summary: "The patient said how it was.",
        fields: &[
            ("patientId", Kind::Text),
            ("doctorId", Kind::Text),
            ("overallRating", Kind::Whole),
            ("wouldRecommend", Kind::MaybeFlag),
            ("feedbackTags", Kind::Texts),
        ],
    },
];

/// A message that is listened to.
struct Heard {
    key: &'static str,
    summary: &'static str,
    /// What `data` must hold, under these or their other names.
    needed: &'static [(&'static str, Form)],
    /// What it may hold.
    more: &'static [(&'static str, Form)],
}

/// How a field of others may be written.
#[derive(Clone, Copy)]
enum Form {
    Id,
    Time,
    Text,
    Minutes,
}

impl Form {
    fn schema(self) -> Value {
        match self {
            Self::Id => json!({ "type": ["string", "integer"] }),
            Self::Time => json!({
                "type": ["string", "array", "number"],
                "description": "ISO 8601 with or without zone, an array as Jackson writes it, or \
                    seconds or milliseconds since 1970. Without a zone it is in the configured one.",
            }),
            Self::Text => json!({ "type": ["string", "null"] }),
            Self::Minutes => json!({ "type": ["integer", "string", "null"] }),
        }
    }
}

const PLAN: &[(&str, Form)] = &[
    ("doctor_name", Form::Text),
    ("patient_name", Form::Text),
    ("appointment_type", Form::Text),
    ("consultation_mode", Form::Text),
    ("duration_minutes", Form::Minutes),
    ("clinic_id", Form::Text),
];

const HEARD: [Heard; 6] = [
    Heard {
        key: "appointment.video.create",
        summary: "A consultation is wanted; of one that has not begun the time may be changed so.",
        needed: &[
            ("appointment_id", Form::Id),
            ("doctor_id", Form::Id),
            ("patient_id", Form::Id),
            ("scheduled_time", Form::Time),
        ],
        more: PLAN,
    },
    Heard {
        key: "appointment.video.start",
        summary: "It begins. `appointment_id` may stand for `session_id`.",
        needed: &[("session_id", Form::Id)],
        more: &[("doctor_id", Form::Id), ("timestamp", Form::Time)],
    },
    Heard {
        key: "appointment.video.end",
        summary: "It ends. `appointment_id` may stand for `session_id`.",
        needed: &[("session_id", Form::Id)],
        more: &[("ended_by", Form::Id), ("ended_by_role", Form::Text), ("timestamp", Form::Time)],
    },
    Heard {
        key: "appointment.created",
        summary: "A consultation is made if the appointment says that it takes place by video.",
        needed: &[("appointment_id", Form::Id)],
        more: PLAN,
    },
    Heard {
        key: "appointment.confirmed",
        summary: "The same, for an appointment that was confirmed.",
        needed: &[("appointment_id", Form::Id)],
        more: PLAN,
    },
    Heard {
        key: "appointment.cancelled",
        summary: "What has begun ends, what has not is called off.",
        needed: &[("appointment_id", Form::Id)],
        more: &[("reason", Form::Text)],
    },
];

/// The parts of the document.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) channels: Map<String, Value>,
    pub(super) operations: Map<String, Value>,
    pub(super) messages: Map<String, Value>,
}

/// Everything about RabbitMQ.
pub(super) fn parts() -> Parts {
    let mut parts = Parts::default();
    for told in &ANSWERS {
        parts.add(told.key, "send", &told_message(told, answer(told)));
    }
    for told in &BROADCASTS {
        parts.add(told.key, "send", &told_message(told, broadcast(told)));
    }
    for heard in &HEARD {
        parts.add(heard.key, "receive", &heard_message(heard));
    }
    parts
}

/// The message of a routing key in `components`.
pub(super) fn message_name(key: &str) -> String {
    format!("rabbitmq.{key}")
}

impl Parts {
    fn add(&mut self, key: &'static str, action: &str, message: &Value) {
        let name = message_name(key);
        let refer = reference("components/messages", &name);
        self.channels.insert(
            name.clone(),
            json!({
                "address": key,
                "messages": { (key): refer },
                "bindings": { "amqp": {
                    "is": "routingKey",
                    "exchange": { "name": EXCHANGE, "type": "topic", "durable": true },
                } },
            }),
        );
        let channel = reference("channels", &name);
        self.operations.insert(name.clone(), json!({ "action": action, "channel": channel }));
        self.messages.insert(name, message.clone());
    }
}

fn told_message(told: &Told, payload: Value) -> Value {
    json!({
        "name": told.key,
        "summary": told.summary,
        "headers": object(&[("x-event-version", json!({ "const": 1 }))]),
        "bindings": { "amqp": { "contentEncoding": "UTF-8", "messageType": told.key } },
        "payload": payload,
    })
}

fn answer(told: &Told) -> Value {
    object(&[
        ("event_type", json!({ "const": told.key })),
        ("timestamp", Kind::Naive.schema()),
        ("timestamp_utc", Kind::Time.schema()),
        ("data", super::fields(&[told.fields])),
    ])
}

fn broadcast(told: &Told) -> Value {
    let mut all = vec![
        ("eventType", json!({ "const": told.key })),
        ("appointmentId", Kind::MaybeText.schema()),
        ("sessionId", Kind::Uuid.schema()),
        ("timestamp", Kind::Naive.schema()),
        ("timestampUtc", Kind::Time.schema()),
    ];
    all.extend(told.fields.iter().map(|(name, kind)| (*name, kind.schema())));
    object(&all)
}

/// As the contract writes it. Other spellings are read, too; what else is there is passed over.
fn heard_message(heard: &Heard) -> Value {
    let shown = |fields: &[(&'static str, Form)]| -> Vec<(&'static str, Value)> {
        fields.iter().map(|(name, form)| (*name, form.schema())).collect()
    };
    let needed: Vec<&str> = heard.needed.iter().map(|(name, _)| *name).collect();
    let data = partly(&[shown(heard.needed), shown(heard.more)].concat(), &needed);
    let payload = partly(
        &[
            ("event_type", json!({ "const": heard.key })),
            ("timestamp", Form::Time.schema()),
            ("data", data),
        ],
        &["data"],
    );
    json!({
        "name": heard.key,
        "summary": format!("{} Names may be in snake_case or camelCase, inside `data` or beside \
            it; the routing key names the event.", heard.summary),
        "payload": payload,
    })
}

/// An object of which some fields must be there.
fn partly(properties: &[(&str, Value)], required: &[&str]) -> Value {
    let mut schema = object(properties);
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("required".to_owned(), json!(required));
    }
    schema
}
