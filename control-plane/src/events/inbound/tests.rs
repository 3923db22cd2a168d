//! Every shape that senders are known to use, and garbage.

use chrono_tz::{America, Asia, Pacific, UTC};
use serde_json::json;

use super::*;

const CREATE: &str = "appointment.video.create";
const START: &str = "appointment.video.start";
const END: &str = "appointment.video.end";

fn message<'a>(routing_key: &'a str, body: &'a [u8]) -> Message<'a> {
    Message { routing_key, body, content_type: Some("application/json"), ..Message::default() }
}

fn read_in(zone: Tz, routing_key: &str, body: &Value) -> Result<Inbound, Poison> {
    read(&message(routing_key, body.to_string().as_bytes()), zone)
}

fn kind_of(routing_key: &str, body: &Value) -> Kind {
    read_in(UTC, routing_key, body).unwrap().kind
}

fn created(body: &Value) -> Create {
    match kind_of(CREATE, body) {
        Kind::Create(create) => *create,
        other => panic!("{other:?} is no create"),
    }
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// EV-01, as the Java service sends it.
fn guide() -> Value {
    json!({
        "event_type": "appointment.video.create",
        "timestamp": "2026-01-24T10:30:00",
        "data": {
            "appointment_id": "uuid-string",
            "doctor_id": "doc123",
            "patient_id": "pat456",
            "scheduled_time": "2026-01-25T14:00:00",
        }
    })
}

/// The guide's message with one field of `data` replaced.
fn guide_with(field: &str, value: Value) -> Value {
    let mut body = guide();
    body["data"][field] = value;
    body
}

#[test]
fn the_guides_create_is_read() {
    let expected = Create {
        appointment_id: "uuid-string".to_owned(),
        doctor_id: "doc123".to_owned(),
        doctor_name: None,
        patient_id: "pat456".to_owned(),
        patient_name: None,
        scheduled_start: utc("2026-01-25T14:00:00Z"),
        scheduled_minutes: None,
        mode: Mode::Video,
    };
    assert_eq!(created(&guide()), expected);
    // EV-02: the other name of the time. VAR-02, VAR-01: other envelopes and letter case.
    for body in [
        json!({"data": {"appointment_id": "uuid-string", "doctor_id": "doc123",
            "patient_id": "pat456", "start_time": "2026-01-25T14:00:00"}}),
        json!({"eventType": "appointment.video.create.v1", "eventTime": "2026-01-24T10:30:00Z",
            "source": "appointment-service", "correlationId": "c-1",
            "data": {"appointmentId": "uuid-string", "doctorId": "doc123",
                "patientId": "pat456", "scheduledStartTime": "2026-01-25T14:00:00Z"}}),
        json!({"appointmentId": "uuid-string", "doctorId": "doc123", "patientId": "pat456",
            "scheduledTime": "2026-01-25T14:00:00", "appointmentType": "VIRTUAL"}),
        json!({"pattern": "appointment.video.create", "data": {"appointment": {
            "id": "uuid-string", "doctor": {"id": "doc123"}, "patient": {"id": "pat456"},
            "scheduled_start": "2026-01-25T14:00:00"}}}),
        json!({"payload": {"AppointmentID": "uuid-string", "DoctorId": "doc123",
            "PatientId": "pat456", "ScheduledTime": "2026-01-25T14:00:00",
            "consultationMode": "video", "unknown": [1, {"deep": null}]}}),
    ] {
        assert_eq!(created(&body), expected, "{body}");
    }
}

#[test]
fn what_a_create_may_add_is_kept() {
    let body = json!({"correlationId": "c-1", "data": {
        "appointment_id": 789, "doctor_id": 12, "patient_id": "345", "clinic_id": "north",
        "doctor_name": "Dr. Osei", "patientName": "Ms. Lindqvist", "duration_minutes": "30",
        "consultation_mode": "AUDIO", "scheduled_time": 1_769_349_600}});
    let inbound = read_in(UTC, CREATE, &body).unwrap();
    assert_eq!(inbound.clinic.as_deref(), Some("north"));
    assert_eq!(inbound.correlation_id.as_deref(), Some("c-1"));
    let create = created(&body);
    // VAR-05: numbers are ids too.
    assert_eq!((create.appointment_id.as_str(), create.doctor_id.as_str()), ("789", "12"));
    assert_eq!(create.doctor_name.unwrap().reveal(), "Dr. Osei");
    assert_eq!(create.patient_name.unwrap().reveal(), "Ms. Lindqvist");
    assert_eq!(create.scheduled_minutes, Some(30));
    assert_eq!(create.mode, Mode::Audio);
    assert_eq!(create.scheduled_start, utc("2026-01-25T14:00:00Z"));
}

#[test]
fn every_way_to_wrap_the_body_is_one_message() {
    let text = guide().to_string();
    let plain = read(&message(CREATE, text.as_bytes()), UTC).unwrap();
    let encoded_twice = Value::String(text.clone()).to_string();
    let marked = format!("\u{feff}{text}");
    let mut inner = guide();
    inner["data"] = Value::String(inner["data"].to_string());
    let inner = inner.to_string();
    // Jackson's default typing puts the class in front of the object, in an array.
    let class = json!(["com.clinic.events.VideoSessionRequest", guide()]).to_string();
    let mut classes = guide();
    classes["data"] = json!(["java.util.LinkedHashMap", classes["data"]]);
    classes["@class"] = json!("com.clinic.events.VideoSessionRequest");
    let classes = classes.to_string();
    // Spring's converters: JSON, text, a JSON string in JSON; Python: no type at all.
    for (content_type, encoding, body) in [
        (Some("application/json"), Some("UTF-8"), text.as_str()),
        (Some("text/plain"), Some("UTF-8"), text.as_str()),
        (Some("application/json"), Some("UTF-8"), encoded_twice.as_str()),
        (Some("application/octet-stream"), None, text.as_str()),
        (Some("application/json; charset=utf-8"), None, marked.as_str()),
        (None, None, text.as_str()),
        (None, None, encoded_twice.as_str()),
        (None, None, inner.as_str()),
        (Some("application/json"), Some("UTF-8"), class.as_str()),
        (Some("application/json"), Some("UTF-8"), classes.as_str()),
    ] {
        let message = Message {
            routing_key: CREATE,
            content_type,
            content_encoding: encoding,
            body: body.as_bytes(),
            ..Message::default()
        };
        let read = read(&message, UTC).unwrap();
        assert_eq!(read.kind, plain.kind, "{content_type:?} {body}");
    }
}

#[test]
fn the_routing_key_names_the_event_and_the_body_helps_out() {
    let text = guide().to_string();
    // Sent to the queue itself, through the default exchange.
    assert!(matches!(
        read(&message("video-session-requests", text.as_bytes()), UTC).unwrap().kind,
        Kind::Create(_)
    ));
    let bare = json!({"appointment_id": "a", "doctor_id": "d", "patient_id": "p",
        "start_time": "2026-01-25T14:00"})
    .to_string();
    let mut by_property = message("video-session-requests", bare.as_bytes());
    assert_eq!(read(&by_property, UTC), Err(Poison::UnknownEvent));
    by_property.event_type = Some(CREATE);
    assert!(read(&by_property, UTC).is_ok());
}

#[test]
fn start_and_end_are_found_by_whatever_they_name() {
    let session = Uuid::from_u128(7);
    // EV-04, EV-09: no appointment, no time at the top.
    let body = json!({"event_type": START, "data": {"session_id": session,
        "doctor_id": "doc123", "timestamp": "2026-01-25T14:00:00"}});
    let which = Which { session: Some(session), ..Which::default() };
    let at = Some(utc("2026-01-25T14:00:00Z"));
    let doctor_id = Some("doc123".to_owned());
    assert_eq!(kind_of(START, &body), Kind::Start { which: which.clone(), doctor_id, at });
    // EV-06, VAR-08.
    for role in ["doctor", "DOCTOR", "HOST", "Doctor"] {
        let body = json!({"data": {"session_id": session, "ended_by": "doc123",
            "ended_by_role": role, "timestamp": [2026, 1, 25, 14, 0]}});
        let ended_by = Some("doc123".to_owned());
        let role = Some(PersonRole::Doctor);
        assert_eq!(kind_of(END, &body), Kind::End { which: which.clone(), ended_by, role, at });
    }
    // VAR-07: peers may keep our meeting_id and call it the session; VAR-06: a number is their own.
    let which = |body: Value| match kind_of(START, &body) {
        Kind::Start { which, .. } => which,
        other => panic!("{other:?}"),
    };
    let room = Some("consultation-abc".to_owned());
    assert_eq!(which(json!({"sessionId": "consultation-abc"})).room, room);
    let slot = which(json!({"sessionId": 789, "appointmentId": "a-1"}));
    assert_eq!(slot, Which { appointment: Some("a-1".to_owned()), ..Which::default() });
    assert_eq!(read_in(UTC, START, &json!({"sessionId": 789})), Err(Poison::NoSession));
    assert_eq!(read_in(UTC, END, &json!({"data": {}})), Err(Poison::NoSession));
}

#[test]
fn a_field_that_is_of_no_use_does_not_hide_one_that_is() {
    let session = Uuid::from_u128(7);
    let which = |body: Value| match kind_of(START, &body) {
        Kind::Start { which, .. } => which,
        other => panic!("{other:?}"),
    };
    let found = Some(session);
    // VAR-06: the doctor's slot beside our id; blanks and rooms beside it.
    for body in [
        json!({"sessionId": 789, "videoSessionId": session}),
        json!({"data": {"session_id": "", "video_session_id": session}}),
        json!({"data": {"session_id": 789}, "session": {"id": session}}),
        json!({"session_id": null, "sessionId": session, "appointment_id": null}),
        json!({"sessionId": session, "session_id": null}),
    ] {
        assert_eq!(which(body.clone()).session, found, "{body}");
    }
    let both = which(json!({"session_id": "consultation-abc", "videoSessionId": session}));
    assert_eq!((both.session, both.room.as_deref()), (found, Some("consultation-abc")));
    let blank = which(json!({"session_id": "", "meeting_id": "consultation-abc"}));
    assert_eq!(blank.room.as_deref(), Some("consultation-abc"));
    // The appointment's own `type` is not the event's.
    for inner in [json!({"type": "VIDEO"}), json!({"event": "booked"}), json!({"type": 7})] {
        let mut body = guide();
        for (name, value) in inner.as_object().unwrap() {
            body["data"][name] = value.clone();
        }
        assert!(read(&message("", body.to_string().as_bytes()), UTC).is_ok(), "{body}");
    }
    // A kind of visit that says nothing of where it takes place, and a mode that does.
    let visit = json!({"id": "a-1", "doctorId": "d", "patientId": "p", "mode": "VIDEO",
        "startTime": "2026-01-25T14:00:00", "appointmentType": "FOLLOW_UP"});
    assert!(matches!(kind_of("appointment.created", &visit), Kind::AppointmentCreated(_)));
    let at_the_clinic = json!({"id": "a-1", "doctorId": "d", "patientId": "p", "mode": "VIDEO",
        "startTime": "2026-01-25T14:00:00", "appointmentType": "IN_PERSON"});
    assert_eq!(kind_of("appointment.created", &at_the_clinic), Kind::NotOurs);
}

#[test]
fn a_length_without_a_unit_stops_no_consultation() {
    // VAR-15: minutes where it can be; Java's Duration as text; else nobody has said one.
    for (value, minutes) in [
        (json!(30), Some(30)),
        (json!("30"), Some(30)),
        (json!(30.0), Some(30)),
        (json!("PT30M"), Some(30)),
        (json!("PT1H"), Some(60)),
        (json!("PT1H30M"), Some(90)),
        (json!("PT45M0S"), Some(45)),
        (json!(1800), None),
        (json!(1800.0), None),
        (json!("PT9H"), None),
        (json!("half an hour"), None),
        (json!(0), None),
        (json!(-5), None),
        (json!({"minutes": 30}), None),
        (json!("PT99999999999999999999H"), None),
    ] {
        for name in ["duration", "scheduled_duration"] {
            let create = created(&guide_with(name, value.clone()));
            assert_eq!(create.scheduled_minutes, minutes, "{name}: {value}");
        }
    }
    assert_eq!(created(&guide_with("duration_minutes", json!(45.0))).scheduled_minutes, Some(45));
}

#[test]
fn appointments_are_ours_if_they_are_by_video() {
    let appointment = |kind: &str| {
        json!({"id": "a-1", "doctorId": "d", "patientId": "p",
        "appointmentDate": "2026-01-25", "startTime": "14:00:00", "appointment_type": kind})
    };
    // VAR-09.
    for kind in ["VIDEO", "VIRTUAL", "video_call", "Online"] {
        let Kind::AppointmentCreated(create) = kind_of("appointment.created", &appointment(kind))
        else {
            panic!("{kind} is by video");
        };
        assert_eq!(create.appointment_id, "a-1");
        assert_eq!(create.scheduled_start, utc("2026-01-25T14:00:00Z"));
    }
    for kind in ["IN_PERSON", "HOME_VISIT", ""] {
        assert_eq!(kind_of("appointment.created", &appointment(kind)), Kind::NotOurs, "{kind}");
    }
    assert_eq!(kind_of(CREATE, &guide_with("appointment_type", json!("IN_PERSON"))), Kind::NotOurs);
    let confirmed = kind_of("appointment.confirmed", &json!({"data": {"appointmentId": "a-1"}}));
    let appointment_id = "a-1".to_owned();
    assert_eq!(confirmed, Kind::AppointmentConfirmed { appointment_id, create: None });
    let cancelled = json!({"appointment": {"id": "a-1"}, "reason": "patient is ill"});
    let appointment_id = "a-1".to_owned();
    let reason = Some("patient is ill".to_owned());
    assert_eq!(
        kind_of("appointment.cancelled", &cancelled),
        Kind::AppointmentCancelled { appointment_id, reason }
    );
}

#[test]
fn a_create_that_cannot_be_followed_says_why() {
    for (field, value, expected) in [
        ("doctor_id", json!(null), "doctor_id is missing or not usable"),
        ("doctor_id", json!("pat456"), "doctor_id and patient_id are the same"),
        ("patient_id", json!("  "), "patient_id is missing or not usable"),
        ("scheduled_time", json!(null), "scheduled_time is missing"),
        ("scheduled_time", json!("tomorrow"), "scheduled_time cannot be understood"),
        ("duration_minutes", json!(0), "the duration must be from 1 to 120 minutes"),
        ("scheduledDurationMinutes", json!(121), "the duration must be from 1 to 120 minutes"),
    ] {
        let Kind::Unusable { appointment_id, error } = kind_of(CREATE, &guide_with(field, value))
        else {
            panic!("{field} was accepted");
        };
        assert_eq!((appointment_id.as_str(), error), ("uuid-string", expected));
    }
    for id in [
        json!(null),
        json!(""),
        json!(1.5),
        json!({"a": 1}),
        json!("a\u{0}b"),
        json!("x".repeat(256)),
    ] {
        let body = guide_with("appointment_id", id);
        assert_eq!(read_in(UTC, CREATE, &body), Err(Poison::NoAppointment), "{body}");
    }
}

fn time(value: &Value, zone: Tz) -> Option<DateTime<Utc>> {
    times::read(value, zone)
}

#[test]
fn times_are_read_in_every_form() {
    // VAR-04 and what Jackson, Python and JavaScript write.
    for (value, expected) in [
        (json!("2026-01-25T14:00:00"), "2026-01-25T14:00:00Z"),
        (json!("2026-01-25T14:00"), "2026-01-25T14:00:00Z"),
        (json!("2026-01-25 14:00:00"), "2026-01-25T14:00:00Z"),
        (json!("2026-01-25T14:00:00.5"), "2026-01-25T14:00:00.5Z"),
        (json!("2026-01-25T14:00:00.123456789"), "2026-01-25T14:00:00.123456Z"),
        (json!("2026-01-25T14:00:00Z"), "2026-01-25T14:00:00Z"),
        (json!("2026-01-25T14:00:00.000Z"), "2026-01-25T14:00:00Z"),
        (json!("2026-01-25T14:00:00+05:30"), "2026-01-25T08:30:00Z"),
        (json!("2026-01-25T14:00:00.25-0800"), "2026-01-25T22:00:00.25Z"),
        (json!("2026-01-25T14:00:00+00:00"), "2026-01-25T14:00:00Z"),
        (json!("2026-01-25T14:00:00+05:30[Asia/Kolkata]"), "2026-01-25T08:30:00Z"),
        (json!([2026, 1, 25, 14, 0]), "2026-01-25T14:00:00Z"),
        (json!([2026, 1, 25, 14, 0, 5]), "2026-01-25T14:00:05Z"),
        (json!([2026, 1, 25, 14, 0, 5, 123_456_789]), "2026-01-25T14:00:05.123456Z"),
        (json!(1_769_349_600), "2026-01-25T14:00:00Z"),
        (json!(1_769_349_600_250_i64), "2026-01-25T14:00:00.25Z"),
        (json!(1_769_349_600.25), "2026-01-25T14:00:00.25Z"),
        (json!("1769349600"), "2026-01-25T14:00:00Z"),
    ] {
        assert_eq!(time(&value, UTC), Some(utc(expected)), "{value}");
    }
    for value in [
        json!("2026-01-25"),
        json!("2026-02-30T14:00"),
        json!("2026-01-25T24:00"),
        json!("14:00"),
        json!("2026-01-25T14"),
        json!("2026-01-25T1:00"),
        json!("2026-01-25T14:00:00+5"),
        json!("2026-01-25T14:00:00Zulu"),
        json!("2026-01-25T14:00:00.x"),
        json!(""),
        json!("2026-01-25T14:00:00[Nowhere/City]"),
        json!([2026, 1, 25]),
        json!([2026, 13, 1, 0, 0]),
        json!([2026, 1, 25, 14, 0, 5, 1, 1]),
        json!([2026, 1, 25, "14", 0]),
        json!([]),
        json!(-1),
        json!(1e300),
        json!(true),
        json!({"epoch": 1}),
        json!("é".repeat(20)),
        json!(u64::MAX),
        json!("2026-01-2é14:00:00"),
    ] {
        assert_eq!(time(&value, UTC), None, "{value}");
    }
}

#[test]
fn naive_times_are_in_the_configured_zone() {
    let at = |text: &str, zone| time(&json!(text), zone);
    assert_eq!(at("2026-01-25T14:00:00", Asia::Kolkata), Some(utc("2026-01-25T08:30:00Z")));
    // With an offset the zone says nothing.
    assert_eq!(at("2026-01-25T14:00:00Z", Asia::Kolkata), Some(utc("2026-01-25T14:00:00Z")));
    // Set back: the first 01:30. Set forward: 02:30 never was, 03:30 it is.
    assert_eq!(at("2026-11-01T01:30", America::New_York), Some(utc("2026-11-01T05:30:00Z")));
    assert_eq!(at("2026-03-08T02:30", America::New_York), Some(utc("2026-03-08T07:30:00Z")));
    // A day that never was.
    assert!(at("2011-12-30T12:00", Pacific::Apia).is_some());
    let start = read_in(Asia::Kolkata, CREATE, &guide()).unwrap();
    let Kind::Create(create) = start.kind else { panic!("no create") };
    assert_eq!(create.scheduled_start, utc("2026-01-25T08:30:00Z"));
}

#[test]
fn poison_is_named() {
    let java = [0xac, 0xed, 0x00, 0x05, 0x73, 0x72];
    let long = vec![b' '; 16 << 20];
    let deep = "[".repeat(100_000);
    let deep_object = "{\"data\":".repeat(50_000);
    for (body, expected) in [
        (&b""[..], Poison::NotJson),
        (b"{", Poison::NotJson),
        (b"hello", Poison::NotJson),
        (b"\"hello\"", Poison::NotJson),
        (b"\"\\\"twice\\\"\"", Poison::NotObject),
        (b"[]", Poison::NotObject),
        (b"null", Poison::NotObject),
        (b"\xff\xfe{\x00}\x00", Poison::Encoding),
        (&java, Poison::JavaSerialized),
        (&long, Poison::TooLong),
        (deep.as_bytes(), Poison::NotJson),
        (deep_object.as_bytes(), Poison::NotJson),
        (b"{}", Poison::NoAppointment),
    ] {
        assert_eq!(read(&message(CREATE, body), UTC), Err(expected));
    }
    let text = guide().to_string();
    let mut typed = message(CREATE, text.as_bytes());
    typed.content_type = Some("application/x-java-serialized-object");
    assert_eq!(read(&typed, UTC), Err(Poison::JavaSerialized));
    typed.content_type = Some("application/json");
    typed.content_encoding = Some("gzip:UTF-8");
    assert_eq!(read(&typed, UTC), Err(Poison::Encoding));
}

#[test]
fn a_delivery_has_the_same_name_each_time_and_no_other_message_has_it() {
    let text = guide().to_string();
    let pretty = serde_json::to_string_pretty(&guide()).unwrap();
    let id = |message: &Message<'_>| read(message, UTC).unwrap().message_id;
    let first = id(&message(CREATE, text.as_bytes()));
    assert_eq!(first.len(), 64);
    assert_eq!(first, id(&message(CREATE, pretty.as_bytes())));
    let mut named = message(CREATE, text.as_bytes());
    named.message_id = Some("1");
    assert_ne!(first, id(&named));
    // A sender that counts from 1 again.
    let other = guide_with("appointment_id", json!("another")).to_string();
    let mut again = message(CREATE, other.as_bytes());
    again.message_id = Some("1");
    assert_ne!(id(&named), id(&again));
}

/// A small generator: the tests need the same garbage each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn garbage_never_panics() {
    let mut dice = Dice(7);
    let keys = [CREATE, START, END, "appointment.created", "appointment.cancelled", "x"];
    let seeds = [
        guide().to_string(),
        json!({"data": {"session_id": Uuid::from_u128(1), "timestamp": [2026, 1, 2, 3, 4]}})
            .to_string(),
        json!({"id": 1, "appointment_type": "VIDEO", "doctorId": 2, "patientId": 3,
            "startTime": "2026-03-08T02:30:00.123+05:30[Asia/Kolkata]"})
        .to_string(),
    ];
    let mut understood = 0;
    for round in 0..30_000 {
        let mut body = seeds[round % seeds.len()].clone().into_bytes();
        match dice.roll(4) {
            0 => body.truncate(dice.roll(body.len())),
            1 => (0..=dice.roll(8)).for_each(|_| {
                let at = dice.roll(body.len());
                body[at] ^= 1 << dice.roll(8);
            }),
            2 => (0..=dice.roll(6)).for_each(|_| {
                let at = dice.roll(body.len());
                let spare = br#"{}[]",:0123456789-+eTZ."#;
                body[at] = spare[dice.roll(spare.len())];
            }),
            _ => body = (0..dice.roll(200)).map(|_| dice.roll(256).to_le_bytes()[0]).collect(),
        }
        understood += usize::from(read(&message(keys[dice.roll(keys.len())], &body), UTC).is_ok());
    }
    assert!(understood > 100, "only {understood} were read: the garbage is too wild to test with");
}
