//! Layers: trees of settings that are laid over each other before they are typed.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Config, ConfigError, DEMO_KEY, DEMO_SECRET, vault};

/// What `bedside demo` starts from.
pub(super) fn demo() -> Value {
    serde_json::json!({
        "api_key": DEMO_KEY,
        "api_secret": DEMO_SECRET,
        "database_url": "",
        "media": { "bind": "127.0.0.1", "advertise": ["127.0.0.1"] },
        "rooms": { "auto_create": true, "allow_simulate": true },
        // Its certificate is nobody's, and gone tomorrow.
        "tls": { "redirect": false, "hsts": "0s" },
    })
}

/// The file as a layer.
pub(super) fn file(path: &str, text: &str) -> Result<Value, ConfigError> {
    // The error's own text quotes the line, and a secret may be what stands there.
    let syntax = |error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let reason = format!("line {line}: {}", error.message());
        ConfigError::Syntax { path: path.to_owned(), reason }
    };
    let layer = toml::from_str::<Value>(text).map_err(syntax)?;
    // Read once more for the message with its line; not while references stand for the values.
    if !vault::tree_refers(&layer) {
        toml::from_str::<Config>(text).map_err(syntax)?;
    }
    Ok(layer)
}

/// A dotted key and its value as a layer.
pub(super) fn nested(key: &str, value: Value) -> Value {
    key.rsplit('.').fold(value, |inner, part| Value::Object(Map::from_iter([(part.into(), inner)])))
}

/// Lays one layer over another.
pub(super) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match into.get_mut(&key) {
                    Some(old) => merge(old, value),
                    None => {
                        into.insert(key, value);
                    }
                }
            }
        }
        (into, from) => *into = from,
    }
}

/// A file's text.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}
