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
            let inner = match root.get(name).cloned() {
                // Some senders serialise the inner object by itself.
                Some(Value::String(text)) => serde_json::from_str(&text).ok(),
                inner => inner,
            };
            if let Some(Value::Object(inner)) = inner.map(without_class) {
                push(&mut scopes, folded(inner));
            }
        }
        push(&mut scopes, root);
        Some(Self { scopes })
    }

    /// What is under these names and not null, in their order. A dot goes into an object.
    pub(super) fn values(&self, names: &[&str]) -> impl Iterator<Item = &Value> {
        let found = self.scopes.iter().flat_map(|scope| names.iter().map(move |n| find(scope, n)));
        found.flatten().filter(|value| !value.is_null())
    }

    /// The first of [`Self::values`].
    pub(super) fn value(&self, names: &[&str]) -> Option<&Value> {
        self.values(names).next()
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

/// A whole number, also one written as text or with a point and nothing behind it.
pub(super) fn whole(value: &Value) -> Option<i64> {
    let float = || {
        let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
        format!("{number:.0}").parse().ok()
    };
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok()).or_else(float)
}

/// Jackson's default typing writes an object as an array: its class, then the object.
pub(super) fn without_class(value: Value) -> Value {
    match value {
        Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
            Ok([Value::String(_), object @ Value::Object(_)]) => object,
            Ok(parts) => Value::Array(parts.into()),
            Err(parts) => Value::Array(parts),
        },
        other => other,
    }
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
    // A name that holds nothing does not hide another spelling of it that holds something.
    let object = object.into_iter().filter(|(_, value)| !value.is_null());
    object.map(|(key, value)| (fold(&key), value)).collect()
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
