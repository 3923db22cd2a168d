//! What the description of the API says about the bodies that [`Words`](super::video_words::Words)
//! read: each field under the contract's own name, with the other names it is known by.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::video_words::{
    APPOINTMENT, DETAILS, DOCTOR, ISSUE, KIND, MINUTES, NAME, PATIENT, PAYMENT, ROLE, SESSION,
    START, USER,
};

/// What `text::is_id` says, as far as a pattern can say it.
const ID_PATTERN: &str = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$";

/// What a field may look like.
#[derive(Clone, Copy)]
enum Form {
    Id,
    NeededId,
    Name,
    Role,
    Kind,
    Time,
    Minutes,
    Picture,
    Issue,
    Text,
}

impl Form {
    fn schema(self) -> Value {
        // What `text::is_id` and `text::is_name` say, as far as a pattern can say it.
        match self {
            Self::Id => json!({"anyOf": [
                {"type": "string", "minLength": 1, "maxLength": 255,
                    "pattern": ID_PATTERN},
                {"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX},
                {"type": "null"},
            ]}),
            // The same, and not `null`.
            Self::NeededId => json!({"anyOf": [
                {"type": "string", "minLength": 1, "maxLength": 255,
                    "pattern": ID_PATTERN},
                {"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX},
            ]}),
            Self::Name => json!({"type": ["string", "null"], "maxLength": 200,
                "pattern": r"^[^\x00-\x1F\x7F-\x9F]*$"}),
            Self::Role => json!({"type": ["string", "null"],
                "enum": ["doctor", "DOCTOR", "HOST", "patient", "PATIENT", "guest", null]}),
            Self::Kind => json!({"type": ["string", "null"],
                "enum": ["VIDEO", "VIRTUAL", "AUDIO", "CHAT", null]}),
            Self::Time => json!({"anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "pattern": r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"},
                {"type": "integer", "minimum": 0, "maximum": 253_402_300_799_999_i64},
                {"type": "null"},
            ]}),
            Self::Picture => json!({"type": "object", "required": ["data"], "properties": {
                "data": {"type": "string", "contentEncoding": "base64",
                    "description": "The picture in Base64, or as a data URL."},
                "fileName": {"type": ["string", "null"]}}}),
            Self::Issue => json!({"type": "string",
                "enum": ["audio", "video", "connection", "other"]}),
            Self::Text => json!({"type": ["string", "null"], "maxLength": 4000,
                "pattern": r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F]*$"}),
            Self::Minutes => json!({"type": ["integer", "null"], "minimum": 1, "maximum": 120}),
        }
    }
}

/// One field of a body: the name it has here, all of its names, its form, what it is.
type Field = (&'static str, &'static [&'static str], Form, &'static str);

fn body(about: &str, fields: &[Field], required: &[&str], example: &Value) -> RefOr<Schema> {
    let mut properties = Map::new();
    for (name, names, form, about) in fields {
        let others: Vec<String> =
            names.iter().filter(|other| *other != name).map(|name| format!("`{name}`")).collect();
        let mut schema = form.schema();
        let about = format!("{about} Also read as {}.", others.join(", "));
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), about.into());
        }
        properties.insert((*name).to_owned(), schema);
    }
    let schema = json!({
        "type": "object", "description": about, "properties": properties,
        "required": required, "example": example,
    });
    serde_json::from_value(schema).expect("the schemas above are schemas")
}

/// Gives a body its name in the description.
macro_rules! bodies {
    ($($(#[$about:meta])* $name:ident = $schema:expr;)*) => {$(
        $(#[$about])*
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )*};
}

bodies! {
    /// `POST /api/video/sessions`.
    VideoSessionRequest = body(
        "A session to make. A doctor may name nobody: then it is an instant session of their own.",
        &[
            ("appointment_id", APPOINTMENT, Form::Id, "The appointment; one session for each."),
            ("doctor_id", DOCTOR, Form::Id, "Who treats."),
            ("doctor_name", &["doctorName"], Form::Name, "Display name."),
            ("patient_id", PATIENT, Form::Id, "Who is treated."),
            ("patient_name", &["patientName"], Form::Name, "Display name."),
            ("scheduled_time", START, Form::Time, "Planned begin; now if absent."),
            ("duration_minutes", MINUTES, Form::Minutes, "Planned length; 15 if absent."),
            ("appointment_type", KIND, Form::Kind, "What the two exchange; VIDEO if absent."),
        ],
        &[],
        &json!({"appointment_id": "6f1c2f0e-6d0b-4a53-9a0c-8f5f5f0d7a11", "doctor_id": "doc123",
            "patient_id": "pat456", "scheduled_time": "2026-01-25T14:00:00"}),
    );
    /// `POST /api/video/sessions/{id}/join`.
    VideoJoinRequest = body(
        "Who joins. People join as themselves; a service says for whom it asks.",
        &[
            ("user_id", USER, Form::Id, "Who joins."),
            ("attendee_name", NAME, Form::Name, "Display name."),
            ("role", ROLE, Form::Role, "What the person is here; it must be true."),
        ],
        &[],
        &json!({"user_id": "doc123", "attendee_name": "Dr. John Smith", "role": "doctor"}),
    );
    /// `POST /api/video/sessions/{id}/end` and its likes.
    VideoEndRequest = body(
        "Who ends it, where a service asks for somebody.",
        &[
            ("userId", USER, Form::Id, "Who ends it."),
            ("role", ROLE, Form::Role, "What the person is here; it must be true."),
        ],
        &[],
        &json!({"userId": "doc123", "role": "DOCTOR"}),
    );
    /// `POST /api/video-consultations/{appointmentId}/start`.
    VideoStartRequest = body(
        "Who starts it, where a service asks for somebody.",
        &[("doctorId", DOCTOR, Form::Id, "The doctor.")],
        &[],
        &json!({"doctorId": "doc123"}),
    );
    /// `POST /api/video/token` (`GenerateVideoTokenDto`) and `POST /api/video/consultation/…`.
    GenerateVideoToken = body(
        "Whose token, for which consultation: one of the two ids is needed. `userInfo` may hold \
         `displayName`; an e-mail address in it is not kept.",
        &[
            ("appointmentId", APPOINTMENT, Form::Id, "The appointment."),
            ("sessionId", SESSION, Form::Id, "The session, instead of its appointment."),
            ("userId", USER, Form::Id, "Who asks."),
            ("userRole", ROLE, Form::Role, "What the person is here; it must be true."),
            ("displayName", NAME, Form::Name, "Display name."),
        ],
        &[],
        &json!({"appointmentId": "6f1c2f0e-6d0b-4a53-9a0c-8f5f5f0d7a11", "userId": "doc123",
            "userRole": "doctor",
            "userInfo": {"displayName": "Dr. Smith", "email": "doctor@clinic.example"}}),
    );
    /// `POST /api/video/consultation/end`.
    EndVideoConsultation = body(
        "Which consultation, by one of the two ids, and who ends it.",
        &[
            ("appointmentId", APPOINTMENT, Form::Id, "The appointment."),
            ("sessionId", SESSION, Form::Id, "The session, instead of its appointment."),
            ("userId", USER, Form::Id, "Who ends it."),
            ("userRole", ROLE, Form::Role, "What the person is here; it must be true."),
        ],
        &[],
        &json!({"appointmentId": "1d4b6c2e-93a1-4f0d-8a39-2a6c9f1f7b22", "userId": "doc123"}),
    );
    /// `POST /api/video-consultations/{appointmentId}/verify-payment`.
    VerifyPaymentRequest = body(
        "A payment that was made; with what is known of the appointment, should its session be \
         missing.",
        &[
            ("paymentId", PAYMENT, Form::NeededId, "Its id at the service that took it."),
            ("doctorId", DOCTOR, Form::Id, "Who treats."),
            ("patientId", PATIENT, Form::Id, "Who is treated."),
            ("scheduledTime", START, Form::Time, "Planned begin."),
            ("appointmentType", KIND, Form::Kind, "What the two exchange; VIDEO if absent."),
        ],
        &["paymentId"],
        &json!({"paymentId": "pay_123xyz"}),
    );
    /// `POST /api/video/image/share`.
    ShareImageRequest = body(
        "A picture, and in which consultation it is shared.",
        &[
            ("imageData", &["image_data"], Form::Picture, "The picture."),
            ("sessionId", SESSION, Form::Id, "The session."),
            ("appointmentId", APPOINTMENT, Form::Id, "Its appointment instead."),
            ("userId", USER, Form::Id, "Who shares it."),
        ],
        &["imageData"],
        &json!({"appointmentId": "6f1c2f0e-6d0b-4a53-9a0c-8f5f5f0d7a11", "userId": "doc123",
            "imageData": {"fileName": "dot.png", "data": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="}}),
    );
    /// A technical issue.
    IssueReportRequest = body(
        "What somebody noticed. People report for themselves; a service may say for whom.",
        &[
            ("issueType", ISSUE, Form::Issue, "What it is about."),
            ("description", DETAILS, Form::Text, "In the reporter's words."),
            ("userId", USER, Form::Id, "Who noticed it."),
        ],
        &["issueType"],
        &json!({"issueType": "audio", "description": "I hear myself twice."}),
    );
    /// The aliases `/appointments/{id}/video/…`, whose path names the appointment.
    AppointmentVideoRequest = body(
        "Who asks, where a service asks for somebody. `userInfo` may hold `displayName`.",
        &[
            ("userId", USER, Form::Id, "Who asks."),
            ("userRole", ROLE, Form::Role, "What the person is here; it must be true."),
            ("displayName", NAME, Form::Name, "Display name."),
        ],
        &[],
        &json!({"userId": "doc123", "userRole": "doctor",
            "userInfo": {"displayName": "Dr. Smith"}}),
    );
}
