//! Reading what the older contracts write: one thing under several names, in several forms.
//!
//! A name may be in `snake_case` or `camelCase`; an id may be text or a number; a time may lack its
//! zone; a role or a kind may be in any case. Two names for one thing that disagree are refused:
//! guessing which one was meant could let in the wrong person.

use chrono::{DateTime, Datelike as _, Duration, NaiveDate, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::problem::Problem;
use crate::consultation::{Mode, PersonRole, Status};
use crate::sessions::MAX_MINUTES;
use crate::{Private, text};

/// Names of the video session; never those of a doctor's slot in the calendar.
pub(super) const SESSION: &[&str] = &["session_id", "sessionId", "callId", "call_id"];
/// Names of the appointment.
pub(super) const APPOINTMENT: &[&str] = &["appointment_id", "appointmentId"];
/// Names of whoever acts.
pub(super) const USER: &[&str] =
    &["user_id", "userId", "started_by", "startedBy", "ended_by", "endedBy"];
/// Names of the doctor.
pub(super) const DOCTOR: &[&str] = &["doctor_id", "doctorId"];
/// Names of the patient.
pub(super) const PATIENT: &[&str] = &["patient_id", "patientId"];
/// Names of a display name.
pub(super) const NAME: &[&str] = &[
    "attendee_name",
    "attendeeName",
    "display_name",
    "displayName",
    "user_name",
    "userName",
    "name",
];
/// Names of a role.
pub(super) const ROLE: &[&str] = &[
    "role",
    "user_role",
    "userRole",
    "participant_type",
    "participantType",
    "sender_type",
    "senderType",
    "ended_by_role",
    "endedByRole",
];
/// Names of the kind of an appointment or a consultation.
pub(super) const KIND: &[&str] = &[
    "consultation_mode",
    "consultationMode",
    "appointment_type",
    "appointmentType",
    "service_type",
    "serviceType",
    "mode",
];
/// Names of the planned begin.
pub(super) const START: &[&str] = &[
    "scheduled_start_time",
    "scheduledStartTime",
    "scheduled_time",
    "scheduledTime",
    "start_time",
    "startTime",
];
/// Names of the planned length, in minutes.
pub(super) const MINUTES: &[&str] = &[
    "scheduled_duration_minutes",
    "scheduledDurationMinutes",
    "duration_minutes",
    "durationMinutes",
    "scheduledDuration",
];

/// Names of a payment.
pub(super) const PAYMENT: &[&str] = &["paymentId", "payment_id"];
/// Names of what a technical issue is about.
pub(super) const ISSUE: &[&str] = &["issueType", "issue_type", "category"];
/// Names of what somebody writes about it.
pub(super) const DETAILS: &[&str] = &["description", "details"];

/// A JSON object whose fields are looked up by any of their names.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Words(Map<String, Value>);

impl Words {
    /// Of a form's fields.
    pub(super) const fn of(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// The value under any of these names; `null` counts as absent.
    pub(super) fn any(&self, names: &[&'static str]) -> Result<Option<&Value>, Problem> {
        let mut found: Option<(&'static str, &Value)> = None;
        for name in names {
            let Some(value) = self.0.get(*name).filter(|value| !value.is_null()) else { continue };
            match found {
                None => found = Some((name, value)),
                Some((_, known)) if same(known, value) => {}
                Some((first, _)) => {
                    return Err(Problem::invalid(format!("{first} and {name} disagree")));
                }
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// An id: text, or a whole number that is read as its digits.
    pub(super) fn id(&self, names: &[&'static str]) -> Result<Option<String>, Problem> {
        let Some(value) = self.any(names)? else { return Ok(None) };
        let id = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if !number.is_f64() => number.to_string(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => return Err(unfit(names, "must be text or a whole number")),
        };
        if text::is_id(&id) {
            Ok(Some(id))
        } else {
            Err(unfit(names, "is empty, too long or not text"))
        }
    }

    /// The id of a video session.
    pub(super) fn session(&self) -> Result<Option<Uuid>, Problem> {
        let Some(id) = self.id(SESSION)? else { return Ok(None) };
        // A number here would be a doctor's slot in the calendar, which is no session of ours.
        Uuid::try_parse(&id).map(Some).map_err(|_| unfit(SESSION, "is no id of a video session"))
    }

    /// A display name.
    pub(super) fn name(&self, names: &[&'static str]) -> Result<Option<Private<String>>, Problem> {
        let Some(name) = self.text(names)? else { return Ok(None) };
        if text::is_name(&name) {
            Ok(Some(Private::new(name)).filter(|name| !name.reveal().trim().is_empty()))
        } else {
            Err(unfit(names, "is too long or not text"))
        }
    }

    /// Any text.
    pub(super) fn text(&self, names: &[&'static str]) -> Result<Option<String>, Problem> {
        match self.any(names)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(unfit(names, "must be text")),
        }
    }

    /// Whole minutes, as a number or as digits.
    pub(super) fn minutes(&self) -> Result<Option<i64>, Problem> {
        let Some(value) = self.any(MINUTES)? else { return Ok(None) };
        let minutes = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        let minutes = minutes.filter(|minutes| (1..=MAX_MINUTES).contains(minutes));
        minutes.map(Some).ok_or_else(|| unfit(MINUTES, "must be from 1 to 120"))
    }

    /// Who somebody is said to be.
    pub(super) fn role(&self) -> Result<Option<PersonRole>, Problem> {
        let Some(word) = self.text(ROLE)? else { return Ok(None) };
        role(&word).map(Some).ok_or_else(|| unfit(ROLE, "must be doctor, host, patient or guest"))
    }

    /// What kind of consultation it is. One in person has no video session.
    pub(super) fn mode(&self) -> Result<Option<Mode>, Problem> {
        let Some(word) = self.text(KIND)? else { return Ok(None) };
        let known = "must be VIRTUAL, VIDEO, AUDIO or CHAT";
        mode(&word).map(Some).ok_or_else(|| unfit(KIND, known))
    }

    /// The planned begin; a time without a zone is in `zone`.
    pub(super) fn start(&self, zone: Tz) -> Result<Option<DateTime<Utc>>, Problem> {
        let Some(value) = self.any(START)? else { return Ok(None) };
        let known = "must be a time as in 2026-01-24T10:30:00Z";
        time(value, zone).map(Some).ok_or_else(|| unfit(START, known))
    }

    /// An object in it.
    pub(super) fn inner(&self, names: &[&'static str]) -> Result<Option<Self>, Problem> {
        match self.any(names)? {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self(fields.clone()))),
            Some(_) => Err(unfit(names, "must be an object")),
        }
    }
}

/// Text and number of the same digits are the same id.
fn same(one: &Value, other: &Value) -> bool {
    let digits = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    one == other || digits(one).is_some_and(|one| digits(other).is_some_and(|other| one == other))
}

fn unfit(names: &[&'static str], why: &str) -> Problem {
    let name = names.first().copied().unwrap_or("the body");
    Problem::invalid(format!("{name} {why}"))
}

/// A role in any case; the host of a call is its doctor.
pub(super) fn role(word: &str) -> Option<PersonRole> {
    match word.trim().to_ascii_lowercase().as_str() {
        "doctor" | "host" => Some(PersonRole::Doctor),
        "patient" | "participant" => Some(PersonRole::Patient),
        "guest" => Some(PersonRole::Guest),
        _ => None,
    }
}

/// A kind of appointment in any case; a virtual one is a video consultation.
pub(super) fn mode(word: &str) -> Option<Mode> {
    match word.trim().to_ascii_uppercase().as_str() {
        "VIDEO" | "VIRTUAL" | "VIDEO_CALL" => Some(Mode::Video),
        "AUDIO" => Some(Mode::Audio),
        "CHAT" => Some(Mode::Chat),
        _ => None,
    }
}

/// A status in any case, with the words of every contract.
pub(super) fn status(word: &str) -> Option<Status> {
    match word.trim().to_ascii_uppercase().as_str() {
        "CREATED" | "BOOKED" => Some(Status::Scheduled),
        "STARTED" | "ACTIVE" => Some(Status::InProgress),
        "ENDED" => Some(Status::Completed),
        word => Status::parse(word),
    }
}

/// A time in any form that a sender may have: ISO 8601 with or without zone, seconds or fraction,
/// an array as Jackson writes it, seconds or milliseconds since 1970.
pub(super) fn time(value: &Value, zone: Tz) -> Option<DateTime<Utc>> {
    let time = match value {
        Value::String(text) => time_in_text(text.trim(), zone),
        Value::Number(number) => {
            let number = number.as_i64()?;
            // Seconds reach this size in the year 5138; milliseconds did in 1973.
            if number.unsigned_abs() >= 100_000_000_000 {
                DateTime::from_timestamp_millis(number)
            } else {
                DateTime::from_timestamp(number, 0)
            }
        }
        Value::Array(parts) => {
            let part = |index: usize| parts.get(index).map_or(Some(0), Value::as_i64);
            let small = |index: usize| u32::try_from(part(index)?).ok();
            if !(5..=7).contains(&parts.len()) {
                return None;
            }
            let date =
                NaiveDate::from_ymd_opt(i32::try_from(part(0)?).ok()?, small(1)?, small(2)?)?;
            let time = date.and_hms_nano_opt(small(3)?, small(4)?, small(5)?, small(6)?)?;
            in_zone(time, zone)
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    };
    time.filter(is_plausible)
}

/// A year of four digits, not before clocks of computers begin.
fn is_plausible(time: &DateTime<Utc>) -> bool {
    (1970..=9999).contains(&time.year())
}

/// The same for a time in a query.
pub(super) fn time_in_text(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc)).filter(is_plausible);
    }
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S%.f"];
    naive
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .and_then(|time| in_zone(time, zone))
        .filter(is_plausible)
}

/// The first of two where clocks are set back; an hour later where they are set forward.
fn in_zone(time: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    let local = zone.from_local_datetime(&time).earliest().or_else(|| {
        let later = time.checked_add_signed(Duration::hours(1))?;
        zone.from_local_datetime(&later).earliest()
    })?;
    Some(local.with_timezone(&Utc))
}

#[cfg(test)]
mod tests;
