//! The environment as a layer: `BEDSIDE_…`, names that other software uses too, and `…_FILE`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::layers::{merge, nested, read};
use super::{Config, ConfigError};

/// Names that other software gives to what we need too.
const PLAIN_NAMES: [(&str, &str); 8] = [
    ("DATABASE_URL", "database_url"),
    ("RABBITMQ_HOST", "rabbitmq.host"),
    ("RABBITMQ_PORT", "rabbitmq.port"),
    ("RABBITMQ_USER", "rabbitmq.username"),
    ("RABBITMQ_USERNAME", "rabbitmq.username"),
    ("RABBITMQ_PASSWORD", "rabbitmq.password"),
    ("RABBITMQ_VHOST", "rabbitmq.vhost"),
    ("RABBITMQ_EXCHANGE", "rabbitmq.exchange"),
];

/// Everything that the environment sets.
pub(super) fn layer(variables: &BTreeMap<String, String>) -> Result<Value, ConfigError> {
    let known =
        serde_json::to_value(Config::default()).expect("the defaults are representable in JSON");
    let mut layer = Value::Object(Map::new());
    for (plain, key) in PLAIN_NAMES {
        for name in [plain.to_owned(), format!("{plain}_FILE")] {
            if let Some(text) = variables.get(&name) {
                merge(&mut layer, variable(&known, &name, key, text)?);
            }
        }
    }
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix("BEDSIDE_") else { continue };
        if rest == "CONFIG" {
            continue;
        }
        let key = rest.to_lowercase().replace("__", ".");
        let key = key.strip_suffix("_file").unwrap_or(&key);
        merge(&mut layer, variable(&known, name, key, text)?);
    }
    Ok(layer)
}

/// One variable as a layer; its type is that of the default.
fn variable(known: &Value, name: &str, key: &str, text: &str) -> Result<Value, ConfigError> {
    let bad = |expected| ConfigError::BadVariable { variable: name.to_owned(), expected };
    let default = key.split('.').try_fold(known, |at, part| at.get(part));
    let text = match name.strip_suffix("_FILE") {
        Some(_) => read(Path::new(text))?.trim_end().to_owned(),
        None => text.to_owned(),
    };
    // As compose files write a variable that nobody set.
    if text.is_empty() && default.is_some() {
        return Ok(Value::Object(Map::new()));
    }
    let value = match default {
        None | Some(Value::Object(_)) => {
            return Err(ConfigError::UnknownVariable(name.to_owned()));
        }
        Some(Value::Bool(_)) => Value::Bool(text.parse().map_err(|_| bad("true or false"))?),
        Some(Value::Number(_)) => {
            Value::from(text.parse::<u64>().map_err(|_| bad("a whole number"))?)
        }
        Some(Value::Array(_)) => {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
        }
        Some(Value::String(_) | Value::Null) => Value::String(text),
    };
    // Alone it tells which variable is wrong; together with the others it no longer would.
    let layer = nested(key, value);
    serde_json::from_value::<Config>(layer.clone()).map_err(|error| ConfigError::Syntax {
        path: name.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(layer)
}
