//! The description of all messages for machines: AsyncAPI 3.0, made from the tables in `words` and
//! `rabbit`. The tests hold every message of the encoders against it.

mod rabbit;
#[cfg(test)]
mod tests;
mod words;

use serde_json::{Map, Value, json};

use words::{EVENTS, Fields, IDS, Told};

/// The whole document.
pub(crate) fn document() -> Value {
    let mut messages = Map::new();
    for told in &EVENTS {
        messages.insert(log_name(told), log_message(told));
        messages.insert(webhook_name(told), webhook_message(told));
    }
    messages.insert(CONFIRMED.to_owned(), confirmed());
    let log: Vec<String> = EVENTS.iter().map(log_name).collect();
    let webhooks: Vec<String> = EVENTS.iter().map(webhook_name).collect();
    let mut document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Bedside events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What Bedside tells other services, and what it listens to. Every event \
                arrives at least once; its id is the same each time. Events of one consultation \
                arrive in the order in which they happened. New fields may come at any time.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "log": channel("consultation-events", "Kafka; the key is the consultation.", &log),
            "webhooks": channel("", "Signed POST requests (Standard Webhooks).", &webhooks),
            "appointments": channel(
                "appointment-events",
                "Kafka; other events of the topic are passed over.",
                &[CONFIRMED.to_owned()],
            ),
        },
        "operations": {
            "tellLog": { "action": "send", "channel": reference("channels", "log") },
            "tellWebhooks": { "action": "send", "channel": reference("channels", "webhooks") },
            "hearAppointments": {
                "action": "receive",
                "channel": reference("channels", "appointments"),
            },
        },
        "components": { "messages": messages },
    });
    let rabbit = rabbit::parts();
    for (place, more) in [
        ("/channels", rabbit.channels),
        ("/operations", rabbit.operations),
        ("/components/messages", rabbit.messages),
    ] {
        if let Some(Value::Object(known)) = document.pointer_mut(place) {
            known.extend(more);
        }
    }
    document
}

const CONFIRMED: &str = "appointment.confirmed";

fn log_name(told: &Told) -> String {
    format!("{}.v1", told.name)
}

fn webhook_name(told: &Told) -> String {
    format!("webhook.{}.v1", told.name)
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{kind}/{name}") })
}

/// Without an address it is whatever the operator configures.
fn channel(address: &str, description: &str, messages: &[String]) -> Value {
    let address = if address.is_empty() { Value::Null } else { json!(address) };
    let messages: Map<String, Value> = messages
        .iter()
        .map(|name| (name.clone(), reference("components/messages", name)))
        .collect();
    json!({ "address": address, "description": description, "messages": messages })
}

fn log_message(told: &Told) -> Value {
    json!({
        "name": log_name(told),
        "summary": told.summary,
        "headers": object(&[
            ("event-id", json!({ "type": "string", "format": "uuid" })),
            ("event-type", json!({ "const": log_name(told) })),
            ("content-type", json!({ "const": "application/json" })),
        ]),
        "payload": object(&envelope(told)),
    })
}

fn webhook_message(told: &Told) -> Value {
    let mut body = envelope(told);
    body.push(("type", json!({ "const": log_name(told) })));
    body.push(("timestamp", json!({ "type": "string", "format": "date-time" })));
    json!({
        "name": log_name(told),
        "summary": told.summary,
        "headers": object(&[
            ("webhook-id", json!({ "type": "string", "format": "uuid" })),
            ("webhook-timestamp", json!({ "type": "string", "pattern": "^[0-9]+$" })),
            ("webhook-signature", json!({ "type": "string", "pattern": "^v1,\\S+( v1,\\S+)*$" })),
        ]),
        "payload": object(&body),
    })
}

fn envelope(told: &Told) -> Vec<(&'static str, Value)> {
    let ids = if told.about { IDS } else { &[] };
    vec![
        ("eventType", json!({ "const": log_name(told) })),
        ("eventTime", json!({ "type": "string", "format": "date-time" })),
        ("source", json!({ "const": "consultation-service" })),
        ("correlationId", json!({ "type": "string" })),
        ("clinicId", json!({ "type": "string" })),
        ("data", fields(&[ids, told.fields])),
    ]
}

/// All of them are always there.
fn fields(groups: &[Fields]) -> Value {
    let all: Vec<(&str, Value)> = groups
        .iter()
        .flat_map(|group| group.iter())
        .map(|(name, kind)| (*name, kind.schema()))
        .collect();
    object(&all)
}

fn object(properties: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// What we need of it; letter case and nesting may be any, and everything else may be there, too.
fn confirmed() -> Value {
    let id = json!({ "type": ["string", "integer"] });
    json!({
        "name": CONFIRMED,
        "summary": "A consultation is made for the appointment, unless it has one. Names may be \
            written in snake_case or camelCase, and stand inside `data` or beside it.",
        "payload": {
            "type": "object",
            "properties": {
                "appointmentId": id,
                "appointment_id": id,
                "doctorId": id,
                "patientId": id,
                "scheduledStartTime": { "type": ["string", "array", "number"] },
                "appointmentType": { "type": "string" },
            },
        },
    })
}
