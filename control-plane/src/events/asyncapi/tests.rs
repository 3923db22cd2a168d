//! Every message of the encoders against its schema, and every schema against a message.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::document;
use super::rabbit::message_name;
use crate::consultation::{Mode, Status};
use crate::events::encode::{kafka, rabbit, webhook};
use crate::events::inbound;
use crate::events::{Event, News, samples};

/// The schema of a message's payload.
fn schema(document: &Value, message: &str) -> Value {
    let message = &document["components"]["messages"][message];
    assert!(message.is_object(), "the document has no such message");
    message["payload"].clone()
}

/// Valid, and without a field that the schema does not name.
fn check(schema: &Value, message: &Value) -> Result<(), String> {
    let options = jsonschema::options().should_validate_formats(true);
    let validator = options.build(schema).map_err(|error| error.to_string())?;
    validator.validate(message).map_err(|error| error.to_string())?;
    undocumented(schema, message)
}

fn undocumented(schema: &Value, message: &Value) -> Result<(), String> {
    let Value::Object(fields) = message else { return Ok(()) };
    for (name, value) in fields {
        let known = &schema["properties"][name];
        if known.is_null() {
            return Err(format!("{name} is not described"));
        }
        undocumented(known, value)?;
    }
    Ok(())
}

fn record(event: &Event) -> Value {
    serde_json::from_slice(&kafka::encode(event).body).unwrap()
}

/// Fewer facts than the samples: an appointment-less consultation that nobody came to.
fn bare(event: &Event) -> Event {
    let mut event = event.clone();
    event.correlation_id = None;
    if let Some(about) = &mut event.about {
        about.appointment_id = None;
        about.mode = Mode::Chat;
        about.actual_start = None;
        about.actual_end = None;
        about.duration_seconds = None;
        about.end_reason = None;
        about.status = Status::NoShow;
    }
    event.news = match event.news {
        News::SessionStarted { .. } => News::SessionStarted { by: None, by_role: None },
        News::Ended { .. } => News::Ended { by: None, by_role: None },
        News::FeedbackSubmitted { .. } => {
            News::FeedbackSubmitted { overall_rating: 1, would_recommend: None, tags: Vec::new() }
        }
        news => news,
    };
    event
}

#[test]
fn every_event_is_as_the_document_says() {
    let document = document();
    for sample in samples::all() {
        for event in [bare(&sample), sample] {
            let name = kafka::event_type(&event.news);
            check(&schema(&document, &name), &record(&event)).unwrap();
            let body = Value::Object(webhook::body(&event));
            check(&schema(&document, &format!("webhook.{name}")), &body).unwrap();
        }
    }
}

#[test]
fn the_document_names_every_event_and_no_other() {
    let document = document();
    let told: BTreeSet<String> =
        samples::all().iter().map(|event| kafka::event_type(&event.news)).collect();
    assert_eq!(told.len(), 13, "samples::all has one event of each kind");
    let messages = document["channels"]["log"]["messages"].as_object().unwrap();
    assert_eq!(messages.keys().cloned().collect::<BTreeSet<_>>(), told);
}

type Change = Box<dyn Fn(&mut Map<String, Value>)>;

#[test]
fn a_message_that_differs_is_found() {
    let document = document();
    let sample = samples::all().remove(0);
    let schema = schema(&document, &kafka::event_type(&sample.news));
    let sound = record(&sample);
    let mut changes: Vec<Change> = Vec::new();
    for name in ["eventType", "eventTime", "source", "correlationId", "data"] {
        changes.push(Box::new(move |message| {
            message.remove(name);
        }));
        changes.push(Box::new(move |message| {
            message.insert(name.to_owned(), Value::from("other"));
        }));
    }
    changes.push(Box::new(|message| {
        message.insert("more".to_owned(), Value::Null);
    }));
    let mut caught = 0;
    for change in &changes {
        let Value::Object(mut message) = sound.clone() else { panic!("an object") };
        change(&mut message);
        caught += usize::from(check(&schema, &Value::Object(message)).is_err());
    }
    // A correlation id may be any text.
    assert_eq!(caught, changes.len() - 1);
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(root: &Value, value: &Value, found: &mut usize) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    let path = target.strip_prefix('#').unwrap();
                    // Our names hold no slash or tilde, which a pointer would have to escape.
                    assert!(root.pointer(path).is_some(), "{target}");
                    *found += 1;
                }
                fields.values().for_each(|value| walk(root, value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(root, value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = document();
    let mut found = 0;
    walk(&document, &document, &mut found);
    assert!(found > 26, "{found}");
}

#[test]
fn every_message_of_rabbitmq_is_as_the_document_says() {
    let document = document();
    let mut sent = BTreeSet::new();
    for sample in samples::all() {
        for event in [bare(&sample), sample] {
            let link = rabbit::needs_link(&event).map(|_| "https://clinic.example/visit#secret");
            for message in rabbit::encode(&event, link) {
                let body: Value = serde_json::from_slice(&message.body).unwrap();
                let key = message.routing_key;
                if let Err(error) = check(&schema(&document, &message_name(key)), &body) {
                    panic!("{key}: {error} in {body}");
                }
                sent.insert(key.to_owned());
            }
        }
    }
    let operations = document["operations"].as_object().unwrap();
    let described = |action: &str| -> BTreeSet<String> {
        let rabbit = operations.iter().filter(|(_, operation)| operation["action"] == action);
        rabbit.filter_map(|(name, _)| name.strip_prefix("rabbitmq.")).map(str::to_owned).collect()
    };
    assert_eq!(described("send"), sent, "no other message is described");
    assert_eq!(described("receive").len(), 6);
}

#[test]
fn what_the_document_asks_for_is_understood() {
    let document = document();
    let session = uuid::Uuid::from_u128(7);
    let cases = [
        (
            "appointment.video.create",
            serde_json::json!({"appointment_id": "a", "doctor_id": "d",
            "patient_id": 7, "scheduled_time": "2026-01-25T14:00:00"}),
        ),
        (
            "appointment.video.start",
            serde_json::json!({"session_id": session, "doctor_id": "d",
            "timestamp": [2026, 1, 25, 14, 0]}),
        ),
        (
            "appointment.video.end",
            serde_json::json!({"session_id": session, "ended_by": "d",
            "ended_by_role": "doctor", "timestamp": "2026-01-25T14:30:00"}),
        ),
        (
            "appointment.created",
            serde_json::json!({"appointment_id": "a", "doctor_id": "d",
            "patient_id": "p", "scheduled_time": 1_769_349_600, "appointment_type": "VIDEO"}),
        ),
        ("appointment.confirmed", serde_json::json!({"appointment_id": "a"})),
        ("appointment.cancelled", serde_json::json!({"appointment_id": "a", "reason": "ill"})),
    ];
    for (key, data) in cases {
        let schema = schema(&document, &message_name(key));
        let body = serde_json::json!({"event_type": key, "data": data});
        let valid = jsonschema::validate(&schema, &body).map_err(|error| error.to_string());
        assert_eq!(valid, Ok(()), "{key}");
        let bytes = body.to_string();
        let message = inbound::Message {
            routing_key: key,
            body: bytes.as_bytes(),
            ..inbound::Message::default()
        };
        let read = inbound::read(&message, chrono_tz::UTC).unwrap();
        assert_eq!(read.kind.name(), key);
        // What it says is needed is needed: without the first field there is nothing to follow.
        let first = schema["properties"]["data"]["required"][0].as_str().unwrap().to_owned();
        let mut less = body.clone();
        less["data"].as_object_mut().unwrap().remove(&first);
        assert!(jsonschema::validate(&schema, &less).is_err(), "{key} without {first}");
        let bytes = less.to_string();
        let message = inbound::Message { body: bytes.as_bytes(), ..message };
        assert!(inbound::read(&message, chrono_tz::UTC).is_err(), "{key} without {first}");
    }
}
