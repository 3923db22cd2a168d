//! Reading the older contracts' words: every name, every form, and what is refused.

use serde_json::json;

use super::*;

fn words(value: Value) -> Words {
    serde_json::from_value(value).expect("an object")
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

#[test]
fn every_name_of_a_thing_is_read() {
    for (names, read) in [
        (APPOINTMENT, Words::id as fn(&Words, &[&'static str]) -> Result<Option<String>, Problem>),
        (USER, Words::id),
        (DOCTOR, Words::id),
        (PATIENT, Words::id),
        (NAME, Words::text),
        (ROLE, Words::text),
        (KIND, Words::text),
    ] {
        for name in names {
            let body = words(json!({*name: "doc123", "other": 1}));
            assert_eq!(read(&body, names).expect(name).as_deref(), Some("doc123"), "{name}");
        }
        assert!(read(&words(json!({"other": "x"})), names).expect("absent").is_none());
    }
    for name in START {
        let body = words(json!({*name: "2026-01-24T10:30:00Z"}));
        assert_eq!(body.start(Tz::UTC).expect(name), Some(utc("2026-01-24T10:30:00Z")));
    }
    for name in MINUTES {
        assert_eq!(words(json!({*name: 20})).minutes().expect(name), Some(20));
        assert_eq!(words(json!({*name: "20"})).minutes().expect(name), Some(20));
    }
}

#[test]
fn an_id_is_text_or_a_number() {
    let id = |value: Value| words(json!({"doctor_id": value})).id(DOCTOR);
    assert_eq!(id(json!("doc123")).expect("text").as_deref(), Some("doc123"));
    assert_eq!(id(json!(789)).expect("number").as_deref(), Some("789"));
    assert!(id(Value::Null).expect("absent").is_none());
    for bad in
        [json!(""), json!("  "), json!("a\nb"), json!(1.5), json!([1]), json!({}), json!(true)]
    {
        assert!(id(bad.clone()).is_err(), "{bad}");
    }
    assert!(id(json!("x".repeat(256))).is_err());
}

#[test]
fn two_names_must_agree() {
    let both = |one: Value, other: Value| words(json!({"user_id": one, "userId": other})).id(USER);
    assert_eq!(both(json!("789"), json!(789)).expect("the same").as_deref(), Some("789"));
    assert_eq!(both(Value::Null, json!("a")).expect("one").as_deref(), Some("a"));
    assert!(both(json!("a"), json!("b")).is_err());
}

#[test]
fn a_slot_of_the_calendar_is_no_session() {
    let session = |value: Value| words(json!({"sessionId": value})).session();
    assert!(session(json!(789)).is_err());
    assert!(session(json!("789")).is_err());
    let id = Uuid::new_v4();
    assert_eq!(session(json!(id.to_string())).expect("ours"), Some(id));
}

#[test]
fn roles_kinds_and_statuses_come_in_any_case() {
    for word in ["doctor", "DOCTOR", "Doctor", "HOST", "host", " host "] {
        assert_eq!(role(word), Some(PersonRole::Doctor), "{word}");
    }
    for word in ["patient", "PATIENT", "PARTICIPANT"] {
        assert_eq!(role(word), Some(PersonRole::Patient), "{word}");
    }
    assert_eq!(role("GUEST"), Some(PersonRole::Guest));
    assert_eq!(role("root"), None);
    for (word, known) in [
        ("VIRTUAL", Some(Mode::Video)),
        ("virtual", Some(Mode::Video)),
        ("VIDEO", Some(Mode::Video)),
        ("AUDIO", Some(Mode::Audio)),
        ("chat", Some(Mode::Chat)),
        ("IN_PERSON", None),
    ] {
        assert_eq!(mode(word), known, "{word}");
    }
    for (word, known) in [
        ("created", Some(Status::Scheduled)),
        ("ENDED", Some(Status::Completed)),
        ("ended", Some(Status::Completed)),
        ("BOOKED", Some(Status::Scheduled)),
        ("in_progress", Some(Status::InProgress)),
        ("over", None),
    ] {
        assert_eq!(status(word), known, "{word}");
    }
    for known in Status::ALL {
        assert_eq!(status(known.as_str()), Some(known));
    }
}

#[test]
fn a_time_comes_in_many_forms() {
    let expected = utc("2026-01-24T10:30:00Z");
    for value in [
        json!("2026-01-24T10:30:00Z"),
        json!("2026-01-24T10:30:00"),
        json!("2026-01-24T10:30"),
        json!("2026-01-24 10:30:00"),
        json!("2026-01-24T10:30:00.000"),
        json!("2026-01-24T16:00:00+05:30"),
        json!([2026, 1, 24, 10, 30]),
        json!([2026, 1, 24, 10, 30, 0]),
        json!([2026, 1, 24, 10, 30, 0, 0]),
        json!(1_769_250_600),
        json!(1_769_250_600_000_i64),
    ] {
        assert_eq!(time(&value, Tz::UTC), Some(expected), "{value}");
    }
    let fraction = time(&json!("2026-01-24T10:30:00.123456"), Tz::UTC);
    assert_eq!(fraction, Some(utc("2026-01-24T10:30:00.123456Z")));
}

#[test]
fn a_naive_time_is_in_the_configured_zone() {
    let kolkata = Tz::Asia__Kolkata;
    let expected = Some(utc("2026-01-24T05:00:00Z"));
    assert_eq!(time(&json!("2026-01-24T10:30:00"), kolkata), expected);
    assert_eq!(time(&json!([2026, 1, 24, 10, 30]), kolkata), expected);
    assert_eq!(time(&json!("2026-01-24T05:00:00Z"), kolkata), expected);
    // A time that the clocks leave out, and one that they have twice.
    let berlin = Tz::Europe__Berlin;
    assert_eq!(time(&json!("2026-03-29T02:30:00"), berlin), Some(utc("2026-03-29T01:30:00Z")));
    assert_eq!(time(&json!("2026-10-25T02:30:00"), berlin), Some(utc("2026-10-25T00:30:00Z")));
}

#[test]
fn what_is_no_time_is_refused() {
    for value in [
        json!("soon"),
        json!(""),
        json!("2026-13-01T00:00:00Z"),
        json!("2026-01-24"),
        json!("1969-12-31T23:59:59Z"),
        json!([12026, 1, 24, 10, 30]),
        json!(-1),
        json!([2026, 1, 24]),
        json!([2026, 1, 24, 25, 0]),
        json!([2026, 1, 24, 10, 30, 0, 0, 0]),
        json!(["2026", 1, 24, 10, 30]),
        json!([-1, -1, -1, -1, -1]),
        json!([i64::MAX, i64::MAX, i64::MAX, i64::MAX, i64::MAX]),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1.5),
        json!({}),
        json!(true),
    ] {
        assert_eq!(time(&value, Tz::Asia__Kolkata), None, "{value}");
    }
    assert!(words(json!({"scheduled_time": "soon"})).start(Tz::UTC).is_err());
}

#[test]
fn random_bodies_do_no_harm() {
    // A plain generator: the same bytes in each run.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good = json!({"session_id": 789, "user_id": "doc", "role": "HOST", "start_time": [2026, 1,
        24, 10, 30], "appointment_type": "VIRTUAL", "duration_minutes": 15})
    .to_string()
    .into_bytes();
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=next() % 4 {
            let at = usize::try_from(next()).unwrap_or(0) % bytes.len();
            bytes[at] = next().to_le_bytes()[0];
        }
        bytes.truncate(usize::try_from(next()).unwrap_or(0) % (bytes.len() + 1));
        let Ok(words) = serde_json::from_slice::<Words>(&bytes) else { continue };
        let _read = (words.session().is_ok(), words.id(USER).is_ok(), words.role().is_ok());
        let _more = (words.mode().is_ok(), words.start(Tz::UTC).is_ok(), words.minutes().is_ok());
    }
}
