//! Finding a field in a message, however its sender spells and nests it.
//!
//! Keys are compared without case, dashes and underscores, so `appointment_id`, `appointmentId`
//! and `AppointmentID` are one. Looked into, in this order: the envelope's `data` (or `payload`),
//! an `appointment` in it, the root, an `appointment` in the root.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The fields of one message.
pub(super) struct Fields {
    scopes: Vec<BTreeMap<String, Value>>,
}

impl Fields {
    /// None if the root is no object.
    pub(super) fn new(root: Value) -> Option<Self> {
        let Value::Object(root) = root else { return None };
        let mut scopes = Vec::new();
        let root = folded(root);
        for name in ["data", "payload"] {
            match root.get(name) {
                Some(Value::Object(inner)) => push(&mut scopes, folded(inner.clone())),
                // Some senders serialise the inner object by itself.
                Some(Value::String(text)) => {
                    if let Ok(Value::Object(inner)) = serde_json::from_str(text) {
                        push(&mut scopes, folded(inner));
                    }
                }
                _ => {}
            }
        }
        push(&mut scopes, root);
        Some(Self { scopes })
    }

    /// The first of these names that is there and not null. A dot goes into an object.
    pub(super) fn value(&self, names: &[&str]) -> Option<&Value> {
        let found = self.scopes.iter().flat_map(|scope| names.iter().map(move |n| find(scope, n)));
        found.flatten().find(|value| !value.is_null())
    }

    /// A text that is not blank.
    pub(super) fn text(&self, names: &[&str]) -> Option<String> {
        let text = self.value(names)?.as_str()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// An id: text, or a whole number.
    pub(super) fn id(&self, names: &[&str]) -> Option<String> {
        let id = match self.value(names)? {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) if !number.is_f64() => number.to_string(),
            _ => return None,
        };
        crate::text::is_id(&id).then_some(id)
    }
}

/// A whole number, also one written as text.
pub(super) fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn push(scopes: &mut Vec<BTreeMap<String, Value>>, scope: BTreeMap<String, Value>) {
    let appointment = match scope.get("appointment") {
        Some(Value::Object(inner)) => {
            let mut inner = folded(inner.clone());
            // Elsewhere a bare `id` could be anything's.
            if let Some(id) = inner.get("id").cloned() {
                inner.entry("appointmentid".to_owned()).or_insert(id);
            }
            Some(inner)
        }
        _ => None,
    };
    scopes.push(scope);
    scopes.extend(appointment);
}

fn folded(object: Map<String, Value>) -> BTreeMap<String, Value> {
    object.into_iter().map(|(key, value)| (fold(&key), value)).collect()
}

fn fold(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

fn find<'a>(scope: &'a BTreeMap<String, Value>, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        None => scope.get(name),
        Some((outer, inner)) => {
            let Value::Object(object) = scope.get(outer)? else { return None };
            object.iter().find(|(key, _)| fold(key) == inner).map(|(_, value)| value)
        }
    }
}
