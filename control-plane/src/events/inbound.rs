//! Reading what other services send: bytes and properties in, one [`Inbound`] or a reason why not.
//!
//! Senders differ in everything but the names of their events. A Spring service sends JSON with or
//! without type headers, as plain text, or as a JSON string that holds JSON; a Python service sends
//! no content type at all; ids come as text or numbers, times as ISO text, arrays or epochs, keys in
//! snake_case or camelCase, with or without an envelope. All of that is one meaning.
//!
//! Pure: the zone of times without one is an argument, and nothing here asks a clock.

mod fields;
mod times;

use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;
use uuid::Uuid;

use crate::Private;
use crate::consultation::{Mode, PersonRole};
use fields::Fields;

/// The longest body that is read. The longest honest message is a hundredth of it.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Begins every stream of Java's own serialisation.
const JAVA_MAGIC: &[u8] = &[0xac, 0xed, 0x00, 0x05];

/// A message as a broker hands it over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Message<'a> {
    /// What the sender addressed it with.
    pub(crate) routing_key: &'a str,
    /// The sender's id of it.
    pub(crate) message_id: Option<&'a str>,
    /// What the sender wants to see again in the answer.
    pub(crate) correlation_id: Option<&'a str>,
    /// MIME type.
    pub(crate) content_type: Option<&'a str>,
    /// Character set or compression.
    pub(crate) content_encoding: Option<&'a str>,
    /// The property `type`.
    pub(crate) event_type: Option<&'a str>,
    /// The payload.
    pub(crate) body: &'a [u8],
}

/// A message that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inbound {
    /// The same for every delivery of one message, different for any two messages.
    pub(crate) message_id: String,
    /// Goes into the answer.
    pub(crate) correlation_id: Option<String>,
    /// The clinic, if the sender names one.
    pub(crate) clinic: Option<String>,
    /// What is wanted.
    pub(crate) kind: Kind,
}

/// What a message wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `appointment.video.create`.
    Create(Box<Create>),
    /// `appointment.video.create` that names its appointment, but cannot be followed.
    Unusable {
        /// Whose consultation is not made.
        appointment_id: String,
        /// Why.
        error: &'static str,
    },
    /// `appointment.video.start`.
    Start {
        /// Which consultation.
        which: Which,
        /// Who starts it.
        doctor_id: Option<String>,
        /// When, by the sender's clock.
        at: Option<DateTime<Utc>>,
    },
    /// `appointment.video.end`.
    End {
        /// Which consultation.
        which: Which,
        /// Who ends it.
        ended_by: Option<String>,
        /// What that person is.
        role: Option<PersonRole>,
        /// When, by the sender's clock.
        at: Option<DateTime<Utc>>,
    },
    /// `appointment.created` of a video appointment.
    AppointmentCreated(Box<Create>),
    /// `appointment.confirmed`. None where it says too little to make a consultation from.
    AppointmentConfirmed {
        /// Which appointment.
        appointment_id: String,
        /// What to make.
        create: Option<Box<Create>>,
    },
    /// `appointment.cancelled`.
    AppointmentCancelled {
        /// Which appointment.
        appointment_id: String,
        /// Why.
        reason: Option<String>,
    },
    /// An appointment that needs no consultation of ours, for example one at the clinic.
    NotOurs,
}

/// A consultation to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Create {
    pub(crate) appointment_id: String,
    pub(crate) doctor_id: String,
    pub(crate) doctor_name: Option<Private<String>>,
    pub(crate) patient_id: String,
    pub(crate) patient_name: Option<Private<String>>,
    pub(crate) scheduled_start: DateTime<Utc>,
    pub(crate) scheduled_minutes: Option<i64>,
    pub(crate) mode: Mode,
}

/// How a message names a consultation; at least one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Which {
    /// By our id.
    pub(crate) session: Option<Uuid>,
    /// By its room, which peers know as `meeting_id` and some send back as `session_id`.
    pub(crate) room: Option<String>,
    /// By its appointment.
    pub(crate) appointment: Option<String>,
}

/// Why a message can never be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Poison {
    TooLong,
    JavaSerialized,
    Encoding,
    NotJson,
    NotObject,
    UnknownEvent,
    NoAppointment,
    NoSession,
}

impl Poison {
    /// In words. They go into a header of the dead letter, so they never quote the message.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "the body is longer than 1 MiB",
            Self::JavaSerialized => "the body is a serialised Java object; send JSON",
            Self::Encoding => "the body is compressed or in another character set; send UTF-8",
            Self::NotJson => "the body is not JSON",
            Self::NotObject => "the body is not a JSON object",
            Self::UnknownEvent => "neither the routing key nor the body names a known event",
            Self::NoAppointment => "there is no usable appointment_id",
            Self::NoSession => "there is no usable session_id or appointment_id",
        }
    }
}

impl Kind {
    /// The event's name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Create(_) | Self::Unusable { .. } => "appointment.video.create",
            Self::Start { .. } => "appointment.video.start",
            Self::End { .. } => "appointment.video.end",
            Self::AppointmentCreated(_) => "appointment.created",
            Self::AppointmentConfirmed { .. } => "appointment.confirmed",
            Self::AppointmentCancelled { .. } => "appointment.cancelled",
            Self::NotOurs => "an appointment without video",
        }
    }
}

/// The events that are listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    VideoCreate,
    VideoStart,
    VideoEnd,
    Created,
    Confirmed,
    Cancelled,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_suffix(".v1").unwrap_or(text);
        Some(match text {
            "appointment.video.create" => Self::VideoCreate,
            "appointment.video.start" => Self::VideoStart,
            "appointment.video.end" => Self::VideoEnd,
            "appointment.created" => Self::Created,
            "appointment.confirmed" => Self::Confirmed,
            "appointment.cancelled" | "appointment.canceled" => Self::Cancelled,
            _ => return None,
        })
    }
}

/// Reads one message. Times without a zone are in `zone`.
pub(crate) fn read(message: &Message<'_>, zone: Tz) -> Result<Inbound, Poison> {
    let root = parse(message)?;
    let canonical = root.to_string();
    let fields = Fields::new(root).ok_or(Poison::NotObject)?;
    let mut named_inside = fields.values(&["eventtype", "pattern", "event", "type"]);
    let name = Name::parse(message.routing_key)
        .or_else(|| message.event_type.and_then(Name::parse))
        .or_else(|| named_inside.find_map(|name| Name::parse(name.as_str()?)))
        .ok_or(Poison::UnknownEvent)?;
    let correlation_id = message
        .correlation_id
        .map(str::to_owned)
        .or_else(|| fields.id(&["correlationid"]))
        .filter(|id| crate::text::is_id(id));
    Ok(Inbound {
        message_id: fingerprint(message, &canonical),
        correlation_id,
        clinic: fields.id(&["clinicid", "clinic", "tenantid", "tenant"]),
        kind: kind(name, &fields, zone)?,
    })
}

/// Body → JSON; a JSON string that holds JSON is read once more.
fn parse(message: &Message<'_>) -> Result<Value, Poison> {
    let body = message.body;
    if body.len() > MAX_BODY_BYTES {
        return Err(Poison::TooLong);
    }
    let says_java = message.content_type.is_some_and(|kind| kind.contains("java-serialized"));
    if says_java || body.starts_with(JAVA_MAGIC) {
        return Err(Poison::JavaSerialized);
    }
    // Whatever it says, text is read as UTF-8; what else it may be would not parse.
    let compressed = message.content_encoding.is_some_and(|encoding| {
        let encoding = encoding.to_ascii_lowercase();
        ["gzip", "deflate", "zip", "br"].iter().any(|kind| encoding.split(':').any(|e| e == *kind))
    });
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if compressed || std::str::from_utf8(body).is_err() {
        return Err(Poison::Encoding);
    }
    let root: Value = serde_json::from_slice(body).map_err(|_| Poison::NotJson)?;
    let root = match root {
        Value::String(inner) => serde_json::from_str(&inner).map_err(|_| Poison::NotJson)?,
        other => other,
    };
    Ok(fields::without_class(root))
}

/// Some senders number their messages from 1 after each start: an id alone names no message.
/// `canonical` is the body with sorted keys and without blanks.
fn fingerprint(message: &Message<'_>, canonical: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [message.routing_key, message.message_id.unwrap_or_default(), canonical] {
        // A length in front of each part: no two triples run into one.
        context.update(&part.len().to_be_bytes());
        context.update(part.as_bytes());
    }
    let hash = context.finish();
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

const APPOINTMENT: &[&str] = &["appointmentid", "appointment.id", "bookingid"];
const DOCTOR: &[&str] = &["doctorid", "doctor.id", "providerid", "hostid"];
const PATIENT: &[&str] = &["patientid", "patient.id"];
const WHEN: &[&str] = &[
    "scheduledtime",
    "scheduledstarttime",
    "scheduledstart",
    "starttime",
    "startdatetime",
    "appointmentdatetime",
    "scheduledat",
];
const DAY: &[&str] = &["appointmentdate", "date", "scheduleddate"];
const MINUTES: &[&str] = &["scheduleddurationminutes", "durationminutes"];
/// Names of a length that do not say in what.
const LENGTH: &[&str] = &["scheduledduration", "duration"];
const AT: &[&str] = &["timestamp", "startedat", "endedat", "at"];

fn kind(name: Name, fields: &Fields, zone: Tz) -> Result<Kind, Poison> {
    let bare = fields.id(APPOINTMENT);
    // In an event about an appointment a plain `id` is the appointment's.
    let appointment = || bare.clone().or_else(|| fields.id(&["id"])).ok_or(Poison::NoAppointment);
    Ok(match name {
        Name::VideoCreate => {
            let appointment_id = bare.ok_or(Poison::NoAppointment)?;
            if fields.text(KINDS).is_some_and(|kind| is_at_the_clinic(&kind)) {
                return Ok(Kind::NotOurs);
            }
            match create(&appointment_id, fields, zone) {
                Ok(create) => Kind::Create(Box::new(create)),
                Err(error) => Kind::Unusable { appointment_id, error },
            }
        }
        Name::VideoStart => Kind::Start {
            which: which(fields)?,
            doctor_id: fields.id(&["doctorid", "doctor.id", "startedby", "userid"]),
            at: fields.value(AT).and_then(|at| times::read(at, zone)),
        },
        Name::VideoEnd => Kind::End {
            which: which(fields)?,
            ended_by: fields.id(&["endedby", "userid", "doctorid", "doctor.id"]),
            role: fields.text(&["endedbyrole", "role", "userrole"]).and_then(|role| role_of(&role)),
            at: fields.value(AT).and_then(|at| times::read(at, zone)),
        },
        Name::Created => {
            let appointment_id = appointment()?;
            match create(&appointment_id, fields, zone) {
                Ok(create) if is_video(fields) => Kind::AppointmentCreated(Box::new(create)),
                Ok(_) | Err(_) => Kind::NotOurs,
            }
        }
        Name::Confirmed => {
            let appointment_id = appointment()?;
            let create = create(&appointment_id, fields, zone).ok();
            let create = create.filter(|_| is_video(fields)).map(Box::new);
            Kind::AppointmentConfirmed { appointment_id, create }
        }
        Name::Cancelled => Kind::AppointmentCancelled {
            appointment_id: appointment()?,
            reason: fields
                .text(&["reason", "cancellationreason", "cancelreason"])
                .filter(|reason| crate::text::is_reason(reason)),
        },
    })
}

/// Everything that a consultation is made from.
fn create(appointment_id: &str, fields: &Fields, zone: Tz) -> Result<Create, &'static str> {
    let doctor_id = fields.id(DOCTOR).ok_or("doctor_id is missing or not usable")?;
    let patient_id = fields.id(PATIENT).ok_or("patient_id is missing or not usable")?;
    if doctor_id == patient_id {
        return Err("doctor_id and patient_id are the same");
    }
    let when = fields.value(WHEN).ok_or("scheduled_time is missing")?;
    let scheduled_start = times::read(when, zone)
        .or_else(|| times::on_day(fields.value(DAY)?, when, zone))
        .ok_or("scheduled_time cannot be understood")?;
    let scheduled_minutes = match fields.value(MINUTES) {
        Some(minutes) => {
            let minutes = fields::whole(minutes).filter(|minutes| PLANNED.contains(minutes));
            Some(minutes.ok_or("the duration must be from 1 to 120 minutes")?)
        }
        // What it may mean instead is nobody's to guess, and no reason to make no consultation.
        None => fields.value(LENGTH).and_then(length).filter(|minutes| PLANNED.contains(minutes)),
    };
    let name = |names: &[&str]| {
        fields.text(names).filter(|name| crate::text::is_name(name)).map(Private::new)
    };
    Ok(Create {
        appointment_id: appointment_id.to_owned(),
        doctor_id,
        doctor_name: name(&["doctorname", "doctor.name", "doctor.fullname"]),
        patient_id,
        patient_name: name(&["patientname", "patient.name", "patient.fullname"]),
        scheduled_start,
        scheduled_minutes,
        mode: mode(fields).unwrap_or(Mode::Video),
    })
}

/// How long a consultation may be planned.
const PLANNED: std::ops::RangeInclusive<i64> = 1..=120;

/// Minutes, as a number or as Java writes a duration: `PT1H30M`.
fn length(value: &Value) -> Option<i64> {
    let Some(text) = value.as_str().and_then(|text| text.trim().strip_prefix("PT")) else {
        return fields::whole(value);
    };
    let (hours, rest) = text.split_once('H').unwrap_or(("0", text));
    let minutes = rest.strip_suffix("0S").unwrap_or(rest);
    let minutes = if minutes.is_empty() { "0" } else { minutes.strip_suffix('M')? };
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    hours.checked_mul(60)?.checked_add(minutes)
}

/// A start or an end names the consultation by our id, by its room, or by the appointment. A number
/// is none of ours: it is the doctor's slot at the sender.
fn which(fields: &Fields) -> Result<Which, Poison> {
    let mut which = Which { appointment: fields.id(APPOINTMENT), ..Which::default() };
    let names = &["sessionid", "videosessionid", "session.id", "meetingid"];
    for text in fields.values(names).filter_map(Value::as_str) {
        let text = text.trim();
        match Uuid::parse_str(text) {
            Ok(id) => which.session = which.session.or(Some(id)),
            Err(_) if which.room.is_none() && crate::text::is_id(text) => {
                which.room = Some(text.to_owned());
            }
            Err(_) => {}
        }
    }
    if which == Which::default() { Err(Poison::NoSession) } else { Ok(which) }
}

const KINDS: &[&str] =
    &["appointmenttype", "appointmentkind", "servicetype", "consultationtype", "visittype", "kind"];
const MODES: &[&str] = &["consultationmode", "mode"];

/// Lower case, without blanks, dashes and underscores.
fn plain(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn is_at_the_clinic(kind: &str) -> bool {
    matches!(plain(kind).as_str(), "inperson" | "clinic" | "onsite" | "offline" | "physical")
}

/// Does the appointment say of itself that it takes place by video, or by another of our modes?
fn is_video(fields: &Fields) -> bool {
    let kind = fields.text(KINDS).map(|kind| plain(&kind));
    match kind.as_deref() {
        Some("virtual" | "video" | "videocall" | "videoconsultation" | "online" | "remote") => true,
        Some("telemedicine" | "telehealth" | "teleconsultation" | "audio" | "chat") => true,
        Some(kind) if is_at_the_clinic(kind) => false,
        // It may tell what for, and the mode how.
        Some(_) | None => mode(fields).is_some(),
    }
}

fn mode(fields: &Fields) -> Option<Mode> {
    let word = fields.text(MODES).or_else(|| fields.text(KINDS))?;
    match plain(&word).as_str() {
        "video" | "virtual" | "videocall" => Some(Mode::Video),
        "audio" | "voice" | "audiocall" => Some(Mode::Audio),
        "chat" | "text" => Some(Mode::Chat),
        _ => None,
    }
}

/// A role in any spelling; who hosts is the doctor.
fn role_of(word: &str) -> Option<PersonRole> {
    match plain(word).as_str() {
        "doctor" | "host" | "provider" | "clinician" => Some(PersonRole::Doctor),
        "patient" | "attendee" => Some(PersonRole::Patient),
        "guest" => Some(PersonRole::Guest),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
